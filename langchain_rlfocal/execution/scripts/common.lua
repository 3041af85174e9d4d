-- What the other scripts begin with. KEYS[1] is the namespace, ARGV[1] what is asked, in JSON. Times are the server's, in milliseconds.

local PLACE = KEYS[1] .. ':'
local ask = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

local LIMITS = {'calls', 'tokens', 'usd'}
local DAY_S = 86400
local GRACE_MS = 2000 -- who waits in a line and is so late is taken out of it

-- Started again, or flushed, since this worker has said what it knows: it says that first (see join.lua).
if not ask.server and redis.call('GET', PLACE .. 'run') ~= ask.run then return cjson.encode('forgotten') end

local function text(number)
  return string.format('%.17g', number)
end

-- What is taken of an account, how often it was set to zero, and in which run it was last written.
local function taken_of(name)
  local found = redis.call('HMGET', PLACE .. 'spent:' .. name, 'calls', 'tokens', 'usd', 'resets', 'run')
  return {tonumber(found[1]) or 0, tonumber(found[2]) or 0, tonumber(found[3]) or 0}, tonumber(found[4]) or 0, found[5]
end

-- The same, to be written. Where a run has begun since, what the server still knows is noted as `base`: what workers know beyond that
-- was lost (see join.lua).
local function account(name)
  local taken, resets, run = taken_of(name)
  if run ~= ask.run then
    local key = PLACE .. 'spent:' .. name
    redis.call('HSET', key, 'run', ask.run, 'base_calls', text(taken[1]), 'base_tokens', text(taken[2]), 'base_usd', text(taken[3]))
  end
  return taken, resets
end

local function write(name, taken, keep_s)
  local key = PLACE .. 'spent:' .. name
  redis.call('HSET', key, 'calls', text(taken[1]), 'tokens', text(taken[2]), 'usd', text(taken[3]))
  if keep_s then redis.call('EXPIRE', key, keep_s) end
end

local function leave(line)
  redis.call('ZREM', PLACE .. 'line:' .. line, ask.ticket)
  redis.call('ZREM', PLACE .. 'seen:' .. line, ask.ticket)
end

local function leave_all()
  if ask.total then leave('total') end
  if ask.of_member or ask.each_ms then leave('member:' .. ask.key) end
end

local function breaker_of(key)
  local found = redis.call('HMGET', PLACE .. 'breaker:' .. key, 'failures', 'heard', 'open_until', 'period', 'probe', 'probe_until')
  return {
    failures = tonumber(found[1]) or 0,
    heard = tonumber(found[2]) or 0, -- failures since the period began, which no success takes back
    open_until = tonumber(found[3]), -- nil where it is closed
    period = tonumber(found[4]) or 0, -- from one opening or reset to the next
    probe = found[5],
    probe_until = tonumber(found[6]) or 0,
  }
end
