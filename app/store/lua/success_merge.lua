-- KEYS: 1 success, 2 the last merge of this process
-- ARGV: 1 number of this merge, 2 lifetime of that note, 3 most fields, 4 most evidence of a cell,
--       5... cell, value, weight, cell, value, weight, ...   (thousandths)   -> all fields and sums
-- A merge that is sent twice counts once. A cell that has seen enough is halved, so that it follows what changes.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
  local most = tonumber(ARGV[4])
  for i = 5, #ARGV, 3 do
    local value, weight = ARGV[i] .. '|v', ARGV[i] .. '|w'
    if redis.call('HEXISTS', KEYS[1], weight) == 1 or redis.call('HLEN', KEYS[1]) < tonumber(ARGV[3]) then
      local v = redis.call('HINCRBY', KEYS[1], value, ARGV[i + 1])
      local w = redis.call('HINCRBY', KEYS[1], weight, ARGV[i + 2])
      if w > most then
        redis.call('HSET', KEYS[1], value, string.format('%.0f', v / 2), weight, string.format('%.0f', w / 2))
      end
    end
  end
end
return redis.call('HGETALL', KEYS[1])
