-- Take a turn of a rate limit, by the generic cell rate algorithm: as `Rates` in limits.py.
--
-- ask: name, each_ms, burst. Returns 0 if it is taken, else the milliseconds until one can be.

local key = PLACE .. 'rate:' .. ask.name
local due = math.max(tonumber(redis.call('GET', key)) or 0, now)
local ms = due - (ask.burst - 1) * ask.each_ms - now
if ms > 1e-6 then return cjson.encode({ms}) end
redis.call('SET', key, text(due + ask.each_ms), 'PX', math.ceil(due + ask.each_ms - now + 1000))
return cjson.encode({0})
