-- KEYS: 1 seen, 2 turn, 3 rollouts, 4 trials   ARGV: 1 milliseconds of a turn, 2 seconds seen may wait,
--       3... pairs of a field of seen and what to append to it
-- -> nil, or for the one gateway whose turn it is: the server's seconds, all rollouts, all trials, all that was seen
for i = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], (redis.call('HGET', KEYS[1], ARGV[i]) or '') .. ARGV[i + 1])
end
if #ARGV > 2 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
if not redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[1]) then return false end
local seen = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
return {redis.call('TIME')[1], redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]), seen}
