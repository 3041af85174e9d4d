-- Admit one call, or say why not: all of it is taken (slots, a turn, room in every account), or nothing is.
--
-- ask: run, worker, ticket, key, lease_ms, bound {calls, tokens, usd}, accounts {{name, {calls=, tokens=, usd=}, seconds to keep it}, ...};
--      has_breaker, total, of_member, each_ms where they limit anything.
-- Returns {"ok", ms until it may begin, is_probe, taken of each account}, {"open", ms until a probe, failures},
--      {"wait", ms until it asks again, ms until its turn}, or {"budget", account, limit, most, taken, asked}.

local LEAD_MS = 200 -- who is next is let through so much before its turn, and waits for that itself: no turn is late by an answer's way

local tickets = PLACE .. 'tickets:' .. ask.worker

-- Asked again, since the answer was lost on its way.
local before = redis.call('HGET', tickets, ask.ticket)
if before then
  local held = cjson.decode(before)
  local taken = {}
  for i, entry in ipairs(ask.accounts) do taken[i] = taken_of(entry[1]) end
  return cjson.encode({'ok', math.max(held.begins - now, 0), held.is_probe, taken})
end

-- ---- the breaker

local breaker = {period = 0, heard = 0}
local is_probe = false
if ask.has_breaker then
  breaker = breaker_of(ask.key)
  if breaker.open_until then
    is_probe = true
    if now < breaker.open_until or (breaker.probe and now < breaker.probe_until) then
      leave_all()
      return cjson.encode({'open', math.max(breaker.open_until - now, 0), breaker.failures})
    end
  end
end

-- ---- slots and turns: first come, first served

local function num_before(line)
  local key, seen = PLACE .. 'line:' .. line, PLACE .. 'seen:' .. line
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', now)) do
    redis.call('ZREM', key, gone)
    redis.call('ZREM', seen, gone)
  end
  return redis.call('ZRANK', key, ask.ticket) or redis.call('ZCARD', key)
end

local function num_free(slots, most)
  if not most then return math.huge end
  redis.call('ZREMRANGEBYSCORE', PLACE .. slots, '-inf', now) -- leases that nobody renewed
  return most - redis.call('ZCARD', PLACE .. slots)
end

local function wait(line, ms, least_ms)
  local key, seen = PLACE .. 'line:' .. line, PLACE .. 'seen:' .. line
  if not redis.call('ZSCORE', key, ask.ticket) then
    redis.call('ZADD', key, redis.call('INCR', PLACE .. 'order'), ask.ticket)
  end
  redis.call('ZADD', seen, now + ms + GRACE_MS, ask.ticket)
  redis.call('PEXPIRE', key, math.ceil(ms + DAY_S * 1000))
  redis.call('PEXPIRE', seen, math.ceil(ms + DAY_S * 1000))
  return cjson.encode({'wait', ms, least_ms})
end

local function slot_ms(num_ahead)
  return math.min(20 * (1 + num_ahead), 200)
end

local own = 'member:' .. ask.key
local turn_key = PLACE .. 'turn:' .. ask.key
local turn, begins = 0, now
if ask.of_member or ask.each_ms then
  local ahead = num_before(own)
  local ms, turn_ms = 0, 0
  if ask.each_ms then
    turn = tonumber(redis.call('GET', turn_key)) or 0
    turn_ms = math.max(turn - now, 0) + ahead * ask.each_ms
  end
  if num_free('slots:' .. own, ask.of_member) <= ahead then ms = slot_ms(ahead) end
  local is_early = turn_ms > LEAD_MS or (turn_ms > 0 and ahead > 0)
  if ms > 0 or is_early then
    if ask.total then leave('total') end -- it holds up nobody else's line
    if not is_early then return wait(own, ms, 0) end
    return wait(own, math.max(ms, turn_ms - LEAD_MS / 2, math.min(turn_ms, 20 * ahead)), turn_ms)
  end
  begins = now + turn_ms
end
if ask.total then
  local ahead = num_before('total')
  if num_free('slots:total', ask.total) <= ahead then
    if ask.of_member or ask.each_ms then leave(own) end
    return wait('total', slot_ms(ahead), 0)
  end
end
leave_all()

-- ---- the accounts

local taken, resets = {}, {}
for i, entry in ipairs(ask.accounts) do
  taken[i], resets[i] = account(entry[1])
  for j, limit in ipairs(LIMITS) do
    local most = entry[2][limit]
    local rounding = limit == 'usd' and most and most * 1e-9 or 0
    if most and taken[i][j] + ask.bound[j] > most + rounding then
      return cjson.encode({'budget', entry[1], limit, most, taken[i][j], ask.bound[j]})
    end
  end
end

-- ---- it is let through

for i, entry in ipairs(ask.accounts) do
  for j = 1, 3 do taken[i][j] = taken[i][j] + ask.bound[j] end
  write(entry[1], taken[i], entry[3])
end
if ask.total then redis.call('ZADD', PLACE .. 'slots:total', now + ask.lease_ms, ask.ticket) end
if ask.of_member then redis.call('ZADD', PLACE .. 'slots:' .. own, now + ask.lease_ms, ask.ticket) end
if ask.each_ms then
  local next_turn = begins + ask.each_ms
  redis.call('SET', turn_key, text(next_turn), 'PX', math.ceil(next_turn - now + 1000))
end
if is_probe then
  redis.call('HSET', PLACE .. 'breaker:' .. ask.key, 'probe', ask.ticket, 'probe_until', text(now + ask.lease_ms))
end
local held = {bound = ask.bound, resets = resets, period = breaker.period, heard = breaker.heard, is_probe = is_probe, begins = begins}
redis.call('HSET', tickets, ask.ticket, cjson.encode(held))
redis.call('EXPIRE', tickets, DAY_S)
return cjson.encode({'ok', begins - now, is_probe, taken})
