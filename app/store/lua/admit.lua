-- KEYS: 1 epoch, 2 leases, 3 settlements acknowledged to those who ask, then what else is named: leases, counters,
--       rates and seats, by their places
-- ARGV: 1 number of admissions, 2 of counters, 3 of rates, 4 lifetime of the record of a lease, 5 of the seats, 6 how
--       many acknowledged settlements they know of, then per counter: its place in KEYS, start, end (0: never),
--       milliseconds kept (after the end, or after the last hold; 0: for ever), per rate: its place, and per admission:
--       place of the lease, its id ('': no lease), epoch, nano-dollars to hold, root, model, counters as JSON, note,
--       place of the seats, most seats (0: none asked for), holder, how many of the counters, how many of the rates,
--       milliseconds of lease and seat, which counter with which limit (-1: none), which rate with microseconds of a
--       unit, burst, cost
-- -> per admission a tag, what belongs to it, and its rates' states (remaining, microseconds until full) last:
--    {1, ...} admitted | {2, state, ...} this lease is known | {3, rate, microseconds to wait (-1: never fits), ...}
--    {4, ...} no seat | {0, counter, used, held} denied | {-1, epoch, older} another epoch, or (older 1)
--    this one, with fewer settlements than were acknowledged | {-2, now} another period | an error, which is no affair
--    of the others
-- They are asked for one after the other, and of each everything is checked before anything is written. What all of them
-- hold on the same counter is written once, at the end.
local counters, rates, told = {}, {}, {KEYS[1], KEYS[3]}
local LARGE = 2 ^ 52
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)

local function whole(number) return string.format('%.0f', number) end

local at = 6
for i = 1, tonumber(ARGV[2]) do
  counters[i] = {key = KEYS[tonumber(ARGV[at + 1])], starts = tonumber(ARGV[at + 2]), ends = tonumber(ARGV[at + 3]),
    kept = tonumber(ARGV[at + 4]), more = 0}
  at = at + 4
end
for i = 1, tonumber(ARGV[3]) do
  rates[i] = {key = KEYS[tonumber(ARGV[at + i])]}
  told[2 + i] = rates[i].key
end
at = at + #rates
told = redis.call('MGET', unpack(told))
local epoch, older = told[1], tonumber(told[2] or 0) < tonumber(ARGV[6])
for i, rate in ipairs(rates) do rate.tat = math.max(now_us, tonumber(told[2 + i] or 0)) end

local function with_states(reply, first, last)
  for a = first, last, 4 do
    local unit, burst = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
    local ahead = rates[tonumber(ARGV[a])].tat - now_us
    reply[#reply + 1] = math.max(0, math.floor((unit * burst - ahead) / unit))
    reply[#reply + 1] = ahead
  end
  return reply
end

local function hold(counter)
  redis.pcall('HINCRBY', counter.key, 'h', whole(counter.more))
  counter.more = 0
end

local open = {} -- of new leases: when they are due, and their ids
local function admit(a, first, first_rate, last)
  local lease, id = KEYS[tonumber(ARGV[a + 1])], ARGV[a + 2]
  local amount, seats = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 10])
  if id ~= '' then
    if not epoch or epoch ~= ARGV[a + 3] then return {-1, epoch or '', 0} end
    if older then return {-1, epoch, 1} end
    local state = redis.call('HGET', lease, 's')
    if state then return with_states({2, state}, first_rate, last) end
    if not amount or amount < 0 or amount ~= math.floor(amount) or amount > 9007199254740991 then
      return redis.error_reply('ERR the amount is no whole number of nano-dollars')
    end
  end

  local chairs, holder, due = KEYS[tonumber(ARGV[a + 9])], ARGV[a + 11], whole(now + tonumber(ARGV[a + 14]))
  if seats > 0 then
    local until_ = tonumber(redis.call('ZSCORE', chairs, holder) or 0)
    if until_ <= now and redis.call('ZCOUNT', chairs, '(' .. whole(now), '+inf') >= seats then
      return with_states({4}, first_rate, last)
    end
  end

  for b = first_rate, last, 4 do
    local rate, unit = rates[tonumber(ARGV[b])], tonumber(ARGV[b + 1])
    local burst, cost = tonumber(ARGV[b + 2]), tonumber(ARGV[b + 3])
    local number = (b - first_rate) / 4 + 1
    if cost > burst then return with_states({3, number, -1}, first_rate, last) end
    rate.after = rate.tat + unit * cost
    local wait = rate.after - unit * burst - now_us
    if wait > 0 then return with_states({3, number, wait}, first_rate, last) end
  end

  for b = first, first_rate - 1, 2 do
    local counter, limit = counters[tonumber(ARGV[b])], tonumber(ARGV[b + 1])
    if counter.ends > 0 and (now < counter.starts or now >= counter.ends) then return {-2, now} end
    if not counter.used then
      local v = redis.call('HMGET', counter.key, 'u', 'h')
      local used, held = tonumber(v[1] or 0), tonumber(v[2] or 0)
      assert(used and held, 'a counter holds what is no number')
      counter.used, counter.held = used, held
    end
    if limit >= 0 and amount > 0 and amount > limit - counter.used - counter.held then
      return {0, (b - first) / 2 + 1, counter.used, counter.held}
    end
  end

  if id ~= '' then -- first, because a store that is full refuses it: nothing may be held for a lease that is not there
    redis.call('HSET', lease, 's', 'held', 'a', ARGV[a + 4], 't', whole(now),
      'r', ARGV[a + 5], 'm', ARGV[a + 6], 'k', ARGV[a + 7], 'n', ARGV[a + 8])
    redis.call('PEXPIRE', lease, ARGV[4])
    open[#open + 1], open[#open + 2] = due, id
  end
  for b = first, first_rate - 1, 2 do
    local counter = counters[tonumber(ARGV[b])]
    counter.held, counter.taken = counter.held + amount, true
    if counter.more + amount > LARGE then hold(counter) end
    counter.more = counter.more + amount
  end
  for b = first_rate, last, 4 do
    local rate = rates[tonumber(ARGV[b])]
    rate.tat, rate.taken = rate.after, true
  end
  if seats > 0 then
    redis.call('ZREMRANGEBYSCORE', chairs, '-inf', whole(now))
    redis.call('ZADD', chairs, due, holder)
    redis.call('PEXPIRE', chairs, ARGV[5])
  end
  return with_states({1}, first_rate, last)
end

local replies = {}
for i = 1, tonumber(ARGV[1]) do
  local first = at + 15
  local first_rate = first + 2 * tonumber(ARGV[at + 12])
  local last = first_rate + 4 * tonumber(ARGV[at + 13]) - 1
  local fine, said = pcall(admit, at, first, first_rate, last)
  if not fine then
    local why = type(said) == 'table' and said.err or said
    local kind = why:match('^%u+') or ''
    -- A store that takes no writes now has taken none of these: nothing is done, and all are told so.
    if kind ~= '' and kind ~= 'ERR' and kind ~= 'WRONGTYPE' then return redis.error_reply(why) end
    said = redis.error_reply(kind == '' and 'ERR ' .. why or why)
  end
  replies[i] = said
  at = last
end

for _, counter in ipairs(counters) do
  if counter.taken then
    hold(counter)
    if counter.ends > 0 then
      redis.call('PEXPIREAT', counter.key, whole(counter.ends + counter.kept))
    elseif counter.kept > 0 then
      redis.call('PEXPIRE', counter.key, whole(counter.kept))
    end
  end
end
for _, rate in ipairs(rates) do
  if rate.taken and rate.tat > now_us then
    redis.call('SET', rate.key, whole(rate.tat), 'PX', whole(math.ceil((rate.tat - now_us) / 1000)))
  end
end
if #open > 0 then redis.call('ZADD', KEYS[2], unpack(open)) end
return replies
