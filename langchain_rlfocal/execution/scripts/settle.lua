-- Settle what a call did cost, instead of the most that it could, give its slots back, and take in what it says of its member.
-- Also books what was spent while the server was lost, as of a ticket that it does not know.
--
-- ask: run, worker, number (asked again with the same one, it has no effect), ticket, key, accounts {{name, {calls, tokens, usd}, seconds to keep it}, ...};
--      total, of_member, each_ms and, if it was admitted, bound as in admit.lua; says "answered" or "failed", with failures and recovery_ms, where it says anything.
-- Returns {"ok", taken of each account}, or {"before"}.

local tickets = PLACE .. 'tickets:' .. ask.worker
local last = tonumber(redis.call('HGET', tickets, '#')) or 0
if ask.number <= last then return cjson.encode({'before'}) end
redis.call('HSET', tickets, '#', text(ask.number))
redis.call('EXPIRE', tickets, DAY_S)

local held = redis.call('HGET', tickets, ask.ticket)
if held then
  held = cjson.decode(held)
  redis.call('HDEL', tickets, ask.ticket)
end

-- A ticket that a restart took: what it held was known to its worker, which has added it again (see join.lua).
local lost_bound = not held and ask.bound or {0, 0, 0}

local taken = {}
for i, entry in ipairs(ask.accounts) do
  local resets
  taken[i], resets = account(entry[1])
  local is_held = held and held.resets[i] == resets -- what was taken before a reset is forgotten already
  for j = 1, 3 do
    taken[i][j] = math.max(taken[i][j] + entry[2][j] - (is_held and held.bound[j] or lost_bound[j]), 0)
  end
  write(entry[1], taken[i], entry[3])
end

if ask.key then
  leave_all()
  redis.call('ZREM', PLACE .. 'slots:total', ask.ticket)
  redis.call('ZREM', PLACE .. 'slots:member:' .. ask.key, ask.ticket)
end

-- ---- the breaker: as `Permit` in limits.py

local breaker = held and ask.recovery_ms and breaker_of(ask.key)
if breaker and breaker.period == held.period then
  local key = PLACE .. 'breaker:' .. ask.key
  local is_probed = breaker.probe and now < breaker.probe_until
  if ask.says == 'answered' then
    if breaker.failures > 0 or breaker.open_until then
      redis.call('HSET', key, 'failures', 0)
      redis.call('HDEL', key, 'open_until', 'probe', 'probe_until')
      redis.call('SREM', PLACE .. 'breakers', ask.key)
    end
  elseif ask.says == 'failed' then
    if breaker.heard == held.heard then
      local failures = breaker.failures + 1
      redis.call('HSET', key, 'failures', failures, 'heard', breaker.heard + 1)
      redis.call('SADD', PLACE .. 'breakers', ask.key)
      if is_probed or failures >= ask.failures then
        redis.call('HSET', key, 'heard', 0, 'period', redis.call('INCR', PLACE .. 'period'), 'open_until', text(now + ask.recovery_ms))
        redis.call('HDEL', key, 'probe', 'probe_until')
      end
    end
  elseif breaker.probe == ask.ticket then
    redis.call('HDEL', key, 'probe', 'probe_until')
  end
end
return cjson.encode({'ok', taken})
