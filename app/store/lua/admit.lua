-- KEYS: 1 epoch, 2 lease, 3 leases, 4 settlements acknowledged to those who ask, then the counters, the rates, the seats
-- ARGV: 1 epoch, 2 lease id ('': no lease), 3 nano-dollars to hold, 4 milliseconds of the lease, 5 lifetime of its record,
--       6 root, 7 model, 8 counters as JSON, 9 note, 10 number of counters, 11 number of rates, 12 most seats (0: none
--       asked for), 13 holder, 14 lifetime of the seats, 15 how many acknowledged settlements they know of,
--       then per counter: limit (-1: none), start, end (0: never), milliseconds kept (after the end, or after the last
--       hold; 0: for ever), and per rate: microseconds of a unit, burst, cost
-- -> a tag, what belongs to it, and the rates' states (remaining, microseconds until full) last:
--    {1, ...} admitted | {2, state, ...} this lease is known | {3, rate, microseconds to wait (-1: never fits), ...}
--    {4, ...} no seat | {0, counter, used, held} denied | {-1, epoch, older} another epoch, or (older 1)
--    this one, with fewer settlements than were acknowledged | {-2, now} another period
-- Everything is checked before anything is written.
local id, amount = ARGV[2], tonumber(ARGV[3])
local counters, rates, most = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
local first_rate = 15 + 4 * counters

local function with_states(reply, tats)
  for i = 1, rates do
    local a = first_rate + 3 * (i - 1)
    local unit, burst = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
    local ahead = tats[i] - now_us
    reply[#reply + 1] = math.max(0, math.floor((unit * burst - ahead) / unit))
    reply[#reply + 1] = ahead
  end
  return reply
end

local tats = {}
for i = 1, rates do
  tats[i] = math.max(now_us, tonumber(redis.call('GET', KEYS[4 + counters + i]) or 0))
end

if id ~= '' then
  local books = redis.call('MGET', KEYS[1], KEYS[4])
  local epoch = books[1]
  if not epoch or epoch ~= ARGV[1] then return {-1, epoch or '', 0} end
  if tonumber(books[2] or 0) < tonumber(ARGV[15]) then return {-1, epoch, 1} end
  local state = redis.call('HGET', KEYS[2], 's')
  if state then return with_states({2, state}, tats) end
  if not amount or amount < 0 or amount ~= math.floor(amount) or amount > 9007199254740991 then
    return redis.error_reply('ERR the amount is no whole number of nano-dollars')
  end
end

local seats = KEYS[5 + counters + rates]
if most > 0 then
  local until_ = tonumber(redis.call('ZSCORE', seats, ARGV[13]) or 0)
  if until_ <= now and redis.call('ZCOUNT', seats, '(' .. string.format('%.0f', now), '+inf') >= most then
    return with_states({4}, tats)
  end
end

local after = {}
for i = 1, rates do
  local a = first_rate + 3 * (i - 1)
  local unit, burst, cost = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  if cost > burst then return with_states({3, i, -1}, tats) end
  after[i] = tats[i] + unit * cost
  local wait = after[i] - unit * burst - now_us
  if wait > 0 then return with_states({3, i, wait}, tats) end
end

for i = 1, counters do
  local a = 15 + 4 * (i - 1)
  local limit, ends = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 3])
  if ends > 0 and (now < tonumber(ARGV[a + 2]) or now >= ends) then return {-2, now} end
  if limit >= 0 and amount > 0 then
    local v = redis.call('HMGET', KEYS[4 + i], 'u', 'h')
    local used, held = tonumber(v[1] or 0), tonumber(v[2] or 0)
    if amount > limit - used - held then return {0, i, used, held} end
  end
end

if id ~= '' then
  for i = 1, counters do
    local a = 15 + 4 * (i - 1)
    local ends, kept = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
    redis.call('HINCRBY', KEYS[4 + i], 'h', ARGV[3])
    if ends > 0 then
      redis.call('PEXPIREAT', KEYS[4 + i], string.format('%.0f', ends + kept))
    elseif kept > 0 then
      redis.call('PEXPIRE', KEYS[4 + i], ARGV[a + 4])
    end
  end
  redis.call('HSET', KEYS[2], 's', 'held', 'a', ARGV[3], 't', string.format('%.0f', now),
    'r', ARGV[6], 'm', ARGV[7], 'k', ARGV[8], 'n', ARGV[9])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  redis.call('ZADD', KEYS[3], string.format('%.0f', now + tonumber(ARGV[4])), id)
end
for i = 1, rates do
  if after[i] > now_us then
    redis.call('SET', KEYS[4 + counters + i], string.format('%.0f', after[i]),
      'PX', string.format('%.0f', math.ceil((after[i] - now_us) / 1000)))
  end
end
if most > 0 then
  redis.call('ZREMRANGEBYSCORE', seats, '-inf', string.format('%.0f', now))
  redis.call('ZADD', seats, string.format('%.0f', now + tonumber(ARGV[4])), ARGV[13])
  redis.call('PEXPIRE', seats, ARGV[14])
end
return with_states({1}, after)
