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
local days = {}
local function log(key, dice, id, row)
  local day = days[key]
  if not day then
    day = {seen = redis.call('HINCRBY', key, '#seen', 0), more = 0, fields = redis.call('HLEN', key)}
    days[key] = day
    if redis.call('TTL', key) < 0 then redis.call('EXPIRE', key, ARGV[5]) end
  end
  day.more = day.more + 1
  if day.fields > rows then
    if dice * (day.seen + day.more) >= rows * 1000000 then return end
    local victim = redis.call('HRANDFIELD', key)
    if victim == '#seen' then return end
    day.fields = day.fields - redis.call('HDEL', key, victim)
  end
  day.fields = day.fields + redis.call('HSET', key, id, row)
end

local decisions = {}
for k = 2, #KEYS, 2 do decisions[#decisions + 1] = KEYS[k] end
local taken = #decisions > 0 and redis.call('EXISTS', unpack(decisions)) > 0

local function put(key, day, a, outcomes)
  local owner, decision = ARGV[a], ARGV[a + 1]
  local before = taken and redis.call('HGET', key, 'owner')
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

local lives, a, put_before = {}, 6, {}
for i, key in ipairs(decisions) do
  taken = taken or put_before[key]
  put_before[key] = true
  local outcomes = tonumber(ARGV[a + 7])
  lives[i] = put(key, KEYS[2 * i + 1], a, outcomes)
  a = a + 8 + 2 * outcomes
end
for key, day in pairs(days) do redis.call('HINCRBY', key, '#seen', day.more) end
redis.call('HSET', KEYS[1], 'left', string.format('%.0f', left), 'at', string.format('%.0f', now))
return lives
