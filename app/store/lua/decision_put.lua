-- KEYS: 1 room, then per decision: itself, training log of its day
-- ARGV: 1 the room in bytes, 2 the lifetime that room is meant for, 3 the shortest lifetime worth having, 4 rows of a
--       log, 5 lifetime of a log, then per decision: owner, decision, bytes, its lifetime, id, for the log (1, 0),
--       dice 0..999999, number of outcomes, then per outcome: source, outcome
-- -> per decision the seconds it will live; 0: lost
-- Room flows back at one whole in that lifetime. Above half of it a decision lives its full time, below in proportion,
-- so that under any load the newest are there and the memory is bounded.
local room, span, shortest, rows = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = tonumber(redis.call('TIME')[1])
local kept = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = tonumber(kept[1]) or room
left = math.min(room, left + math.max(0, now - (tonumber(kept[2]) or now)) * room / span)

-- The day's log is a fair sample of the day: once it is full, each further row takes the place of a random one.
local function log(key, dice, id, row)
  local seen = redis.call('HINCRBY', key, '#seen', 1)
  if redis.call('TTL', key) < 0 then redis.call('EXPIRE', key, ARGV[5]) end
  if redis.call('HLEN', key) > rows then
    if dice * seen >= rows * 1000000 then return end
    local victim = redis.call('HRANDFIELD', key)
    if victim == '#seen' then return end
    redis.call('HDEL', key, victim)
  end
  redis.call('HSET', key, id, row)
end

local function put(key, day, a, outcomes)
  local owner, decision = ARGV[a], ARGV[a + 1]
  local before = redis.call('HGET', key, 'owner')
  if before and before ~= owner then return 0 end -- an id that another key has used already
  local seconds = math.floor(tonumber(ARGV[a + 3]) * math.min(1, 2 * left / room))
  if seconds < shortest then return 0 end
  left = math.floor(math.max(0, left - tonumber(ARGV[a + 2]) * seconds / span) + 0.5)
  if before then redis.call('DEL', key) end
  local fields, told = {'owner', owner, 'decision', decision, 'log', day}, {}
  for i = a + 8, a + 7 + 2 * outcomes, 2 do
    fields[#fields + 1], fields[#fields + 2] = 'outcome:' .. ARGV[i], ARGV[i + 1]
    told[#told + 1] = ARGV[i + 1]
  end
  redis.call('HSET', key, unpack(fields))
  redis.call('EXPIRE', key, seconds)
  if ARGV[a + 5] == '1' then
    log(day, tonumber(ARGV[a + 6]), ARGV[a + 4], '[' .. decision .. ',[' .. table.concat(told, ',') .. ']]')
  end
  return seconds
end

local lives, a = {}, 6
for k = 2, #KEYS, 2 do
  local outcomes = tonumber(ARGV[a + 7])
  lives[#lives + 1] = put(KEYS[k], KEYS[k + 1], a, outcomes)
  a = a + 8 + 2 * outcomes
end
redis.call('HSET', KEYS[1], 'left', string.format('%.0f', left), 'at', string.format('%.0f', now))
return lives
