-- Begin, or begin again after the server was lost. Where it was started since and has lost what it knew, or the last of it, each
-- worker adds what it knows of an account beyond `base`, which is what the server still knew, and what others have added.
--
-- ask: run, worker, accounts {{name, calls, tokens, usd}, ...}, as last known.
-- Returns what is taken of each account.

local taken = {}
for i, entry in ipairs(ask.accounts) do
  local key = PLACE .. 'spent:' .. entry[1]
  taken[i] = account(entry[1])
  for j, limit in ipairs(LIMITS) do
    local base = tonumber(redis.call('HGET', key, 'base_' .. limit))
    if entry[j + 1] > base and ask.is_restarted then
      taken[i][j] = taken[i][j] + entry[j + 1] - base
      redis.call('HSET', key, 'base_' .. limit, text(entry[j + 1]))
    end
  end
  write(entry[1], taken[i])
end
return cjson.encode(taken)
