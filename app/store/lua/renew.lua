-- KEYS: 1 leases, 2... seats   ARGV: 1 milliseconds from now, 2 lifetime of the seats, a holder per seat, then lease ids
-- What has ended meanwhile is not brought back.
local t = redis.call('TIME')
local due = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[1]))
for i = 2, #KEYS do
  redis.call('ZADD', KEYS[i], 'XX', 'GT', due, ARGV[i + 1])
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
for i = #KEYS + 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', 'GT', due, ARGV[i]) end
return 1
