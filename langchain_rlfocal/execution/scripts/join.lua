-- Begin, or begin again after the server was lost. A run lasts until the server is started again, or flushed, and so has lost what it
-- knew, or the last of it. Then each worker adds what it knows of an account beyond `base`, which is what the server still knew, and what
-- others have added.
--
-- ask: server (its own run_id), run (which this worker has joined before, or ""), worker, accounts {{name, {calls, tokens, usd}, seconds
--      to keep it}, ...}, as last known.
-- Returns {run, what is taken of each account}.

local run = redis.call('GET', PLACE .. 'run')
if not run or run:sub(1, #ask.server) ~= ask.server then
  run = ask.server .. ' ' .. ask.worker .. ' ' .. text(now)
  redis.call('SET', PLACE .. 'run', run)
end
local is_begun_since = ask.run ~= '' and ask.run ~= run
ask.run = run

local taken = {}
for i, entry in ipairs(ask.accounts) do
  local key = PLACE .. 'spent:' .. entry[1]
  taken[i] = account(entry[1])
  for j, limit in ipairs(LIMITS) do
    local base, known = tonumber(redis.call('HGET', key, 'base_' .. limit)), entry[2][j]
    if known > base and is_begun_since then
      taken[i][j] = taken[i][j] + known - base
      redis.call('HSET', key, 'base_' .. limit, text(known))
    end
  end
  write(entry[1], taken[i], entry[3])
end
return cjson.encode({run, taken})
