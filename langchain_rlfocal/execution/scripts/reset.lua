-- Set what is spent on accounts to zero, or close breakers; what calls that run come to counts towards nothing that was before.
--
-- ask: run, worker; accounts {name, ...}, breakers {member, ...}, or all_breakers.

for _, name in ipairs(ask.accounts or {}) do
  account(name)
  write(name, {0, 0, 0})
  redis.call('HINCRBY', PLACE .. 'spent:' .. name, 'resets', 1)
end

if ask.breakers or ask.all_breakers then redis.call('INCR', PLACE .. 'breaker_resets') end
local members = ask.breakers or {}
if ask.all_breakers then members = redis.call('SMEMBERS', PLACE .. 'breakers') end
for _, key in ipairs(members) do
  redis.call('DEL', PLACE .. 'breaker:' .. key)
  redis.call('HSET', PLACE .. 'breaker:' .. key, 'period', redis.call('INCR', PLACE .. 'period'))
  redis.call('SREM', PLACE .. 'breakers', key)
end
return cjson.encode({'ok'})
