-- KEYS: 1 decision, 2 room, 3 training log of the day
-- ARGV: 1 owner, 2 decision, 3 bytes, 4 its lifetime, 5 the room in bytes, 6 the lifetime that room is meant for,
--       7 the shortest lifetime worth having, 8 id, 9 rows of the log (0: not for the log), 10 lifetime of the log,
--       11 dice 0..999999, 12... source, outcome, source, outcome, ...   -> seconds it will live; 0: lost
-- Room flows back at one whole in that lifetime. Above half of it a decision lives its full time, below in proportion,
-- so that under any load the newest are there and the memory is bounded.
local before = redis.call('HGET', KEYS[1], 'owner')
if before and before ~= ARGV[1] then return 0 end -- an id that another key has used already
local room, span = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = tonumber(redis.call('TIME')[1])
local kept = redis.call('HMGET', KEYS[2], 'left', 'at')
local left = tonumber(kept[1]) or room
left = math.min(room, left + math.max(0, now - (tonumber(kept[2]) or now)) * room / span)
local seconds = math.floor(tonumber(ARGV[4]) * math.min(1, 2 * left / room))
if seconds < tonumber(ARGV[7]) then return 0 end
left = math.max(0, left - tonumber(ARGV[3]) * seconds / span)
redis.call('HSET', KEYS[2], 'left', string.format('%.0f', left), 'at', string.format('%.0f', now))
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'decision', ARGV[2], 'log', KEYS[3])
local outcomes = {}
for i = 12, #ARGV, 2 do
  redis.call('HSET', KEYS[1], 'outcome:' .. ARGV[i], ARGV[i + 1])
  outcomes[#outcomes + 1] = ARGV[i + 1]
end
redis.call('EXPIRE', KEYS[1], seconds)
local rows = tonumber(ARGV[9])
if rows == 0 then return seconds end
-- The day's log is a fair sample of the day: once it is full, each further row takes the place of a random one.
local seen = redis.call('HINCRBY', KEYS[3], '#seen', 1)
if redis.call('TTL', KEYS[3]) < 0 then redis.call('EXPIRE', KEYS[3], ARGV[10]) end
if redis.call('HLEN', KEYS[3]) > rows then
  if tonumber(ARGV[11]) * seen >= rows * 1000000 then return seconds end
  local victim = redis.call('HRANDFIELD', KEYS[3])
  if victim == '#seen' then return seconds end
  redis.call('HDEL', KEYS[3], victim)
end
redis.call('HSET', KEYS[3], ARGV[8], '[' .. ARGV[2] .. ',[' .. table.concat(outcomes, ',') .. ']]')
return seconds
