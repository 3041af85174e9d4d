-- A worker goes: nobody need wait for it to be missed. What its calls took of accounts stays taken.
--
-- ask: worker, calls as in beat.lua.

redis.call('ZREM', PLACE .. 'workers', ask.worker)
for _, call in ipairs(ask.calls) do
  redis.call('ZREM', PLACE .. 'slots:total', call[1])
  redis.call('ZREM', PLACE .. 'slots:member:' .. call[2], call[1])
  if redis.call('HGET', PLACE .. 'breaker:' .. call[2], 'probe') == call[1] then
    redis.call('HDEL', PLACE .. 'breaker:' .. call[2], 'probe', 'probe_until')
  end
end
return cjson.encode({'ok'})
