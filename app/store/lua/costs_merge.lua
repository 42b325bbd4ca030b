-- KEYS: 1 the last merge of this process, 2... hashes of sums
-- ARGV: 1 number of this merge, 2 lifetime of that note; then per hash: seconds it lives after a change (0: for ever),
--       how many fields follow, field, amount, field, amount, ...   -> how many fields each hash has
-- A merge that is sent twice counts once.
local at = 3
local new = redis.call('GET', KEYS[1]) ~= ARGV[1]
if new then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
local sizes = {}
for i = 2, #KEYS do
  local seconds, count = ARGV[at], tonumber(ARGV[at + 1])
  if new then
    for j = at + 2, at + 2 * count, 2 do redis.call('HINCRBY', KEYS[i], ARGV[j], ARGV[j + 1]) end
    if seconds ~= '0' then redis.call('EXPIRE', KEYS[i], seconds) end
  end
  sizes[i - 1] = redis.call('HLEN', KEYS[i])
  at = at + 2 + 2 * count
end
return sizes
