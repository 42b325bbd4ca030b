-- KEYS: places of asks   ARGV: 1 how long an ask is remembered, then per place: what to remember there ('': nothing)
-- -> what was remembered at each place before
local before = {}
for i, key in ipairs(KEYS) do
  before[i] = redis.call('GET', key)
  if ARGV[1 + i] ~= '' then redis.call('SET', key, ARGV[1 + i], 'EX', ARGV[1]) end
end
return before
