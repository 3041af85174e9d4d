-- Say that a worker is there, renew what its calls hold, and hear what the others did.
--
-- ask: run, worker, alive_ms, lease_ms, calls {{ticket, key, has total, has of_member, is_probe}, ...}, accounts {name, ...},
--      number (said again with the same one, controllers add nothing), controllers {{name, most, prior, memory, balance, queries, ends,
--      taken, expected}, ...}: what was added since the last time.
-- Returns {number of workers, taken of each account, {{member, ms until a probe, failures}, ...} of open breakers,
--      {{balance, queries, taken, expected}, ...} of the controllers, how often breakers were closed by hand}.

redis.call('ZREMRANGEBYSCORE', PLACE .. 'workers', '-inf', now)
redis.call('ZADD', PLACE .. 'workers', now + ask.alive_ms, ask.worker)

for _, call in ipairs(ask.calls) do
  local until_ms = text(now + ask.lease_ms)
  if call[3] then redis.call('ZADD', PLACE .. 'slots:total', until_ms, call[1]) end
  if call[4] then redis.call('ZADD', PLACE .. 'slots:member:' .. call[2], until_ms, call[1]) end
  if call[5] and redis.call('HGET', PLACE .. 'breaker:' .. call[2], 'probe') == call[1] then
    redis.call('HSET', PLACE .. 'breaker:' .. call[2], 'probe_until', until_ms)
  end
end
local tickets = PLACE .. 'tickets:' .. ask.worker
local is_new = ask.number > (tonumber(redis.call('HGET', tickets, 'beat')) or 0)
if is_new and #ask.controllers > 0 then redis.call('HSET', tickets, 'beat', text(ask.number)) end
redis.call('EXPIRE', tickets, DAY_S)

local taken = {}
for i, name in ipairs(ask.accounts) do taken[i] = taken_of(name) end

local open = {}
for _, key in ipairs(redis.call('SMEMBERS', PLACE .. 'breakers')) do
  local breaker = breaker_of(key)
  if breaker.open_until then
    open[#open + 1] = {key, math.max(breaker.open_until - now, 0), breaker.failures}
  end
end

-- As `TargetController` in policies/targets.py, where `taken` and `expected` fade towards `prior` by each query that ended.
local controllers = {}
for i, entry in ipairs(ask.controllers) do
  local key = PLACE .. 'controller:' .. entry[1]
  local most, prior, memory = entry[2], entry[3], entry[4]
  local found = redis.call('HMGET', key, 'balance', 'queries', 'taken', 'expected')
  local state = {tonumber(found[1]) or 0, tonumber(found[2]) or 0, tonumber(found[3]) or prior, tonumber(found[4]) or prior}
  if is_new then
    local fading = (1 - 1 / memory) ^ entry[7]
    state = {
      math.min(math.max(state[1] + entry[5], -most), most),
      state[2] + entry[6],
      prior + (state[3] - prior) * fading + entry[8],
      prior + (state[4] - prior) * fading + entry[9],
    }
  end
  redis.call('HSET', key, 'balance', text(state[1]), 'queries', text(state[2]), 'taken', text(state[3]), 'expected', text(state[4]))
  redis.call('EXPIRE', key, 30 * DAY_S)
  controllers[i] = state
end

local resets = tonumber(redis.call('GET', PLACE .. 'breaker_resets')) or 0
return cjson.encode({redis.call('ZCARD', PLACE .. 'workers'), taken, open, controllers, resets})
