-- KEYS: 1 stream, 2 events, 3 index (whose events expire when), 4 sizes (and '#', their sum)
-- ARGV: 1 name in the index, 2 who makes it, 3 milliseconds for which it counts as alive, 4 its state after this,
--       5 number of the last of these events, 6 the events ('': it is alive, and no more), 7 seconds the stream is known,
--       8 seconds its events are kept, 9 the room of all streams in bytes, 10 the most bytes of one
-- -> {milliseconds since somebody read it (-1: nobody did), names of streams whose events had to go for these ...}
--    | {}: the stream is kept no more
local known = redis.call('HMGET', KEYS[1], 'by', 'state', 'last', 'bytes', 'read')
if known[1] ~= ARGV[2] then return {} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {known[5] and now - known[5] or -1}
if known[2] ~= 'running' then return known[2] == ARGV[4] and answer or {} end

local sum = tonumber(redis.call('HGET', KEYS[4], '#')) or 0
local function forget(name)
  sum = sum - (tonumber(redis.call('HGET', KEYS[4], name)) or 0)
  redis.call('ZREM', KEYS[3], name)
  redis.call('HDEL', KEYS[4], name)
end
local function give_up()
  forget(ARGV[1])
  redis.call('HSET', KEYS[4], '#', string.format('%.0f', sum))
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'state', 'dropped')
  return {}
end

local last, bytes = tonumber(known[3]), tonumber(known[4])
if last > 0 and redis.call('EXISTS', KEYS[2]) == 0 then return give_up() end -- what comes next would follow a gap
if ARGV[6] ~= '' and tonumber(ARGV[5]) > last then
  last, bytes = tonumber(ARGV[5]), bytes + #ARGV[6] + 128
  if bytes > math.min(tonumber(ARGV[9]), tonumber(ARGV[10])) then return give_up() end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 100)) do forget(name) end
  forget(ARGV[1])
  while sum + bytes > tonumber(ARGV[9]) and #answer < 50 do
    local name = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
    if not name then break end
    forget(name)
    answer[#answer + 1] = name
  end
  redis.call('XADD', KEYS[2], ARGV[5] .. '-0', 'e', ARGV[6])
  redis.call('HSET', KEYS[4], ARGV[1], string.format('%.0f', bytes), '#', string.format('%.0f', sum + bytes))
end
if last > 0 then
  redis.call('ZADD', KEYS[3], now + ARGV[8] * 1000, ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[8])
end
redis.call('HSET', KEYS[1], 'state', ARGV[4], 'last', string.format('%.0f', last), 'bytes', string.format('%.0f', bytes),
  'until', string.format('%.0f', now + ARGV[3]))
redis.call('EXPIRE', KEYS[1], ARGV[7])
return answer
