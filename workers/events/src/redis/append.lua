#!lua
-- Stores one batch of submissions: each event once (by its id inside the window), under contiguous seqs.
-- KEYS: stream, meta, anchors, marks, types, latest, ids of even and of odd generations.
-- ARGV: epoch, window ms, ids a generation at most, events/bytes/ms between anchors at most, number of submissions;
--       then for each: number of events, 1 when all or nothing; then for each event:
--       event id, fingerprint, type, symbol, source, time in us, 1 when it is market data, the event, its partition
--       or ''.
-- Answer: for each event S|D|C|W (stored, duplicate, conflict, withheld), seq, message id.
local stream, meta, anchors, marks, types, latest = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local ids = { [0] = KEYS[7], [1] = KEYS[8] }
local FIELDS, TYPES_MAX, SYMBOLS_MAX = 9, 512, 10000
local window, generation_max = tonumber(ARGV[2]), tonumber(ARGV[3])
local step_events, step_bytes, step_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local m = redis.call('HMGET', meta, 'epoch', 'seq', 'id', 'bytes', 'young', 'young_ms', 'mark_seq', 'mark_bytes', 'mark_ms')
if m[1] ~= ARGV[1] then
  return redis.error_reply('EPOCH the stored events are not those that were known')
end
local seq, last_id, bytes = tonumber(m[2]), m[3], tonumber(m[4])
local young, young_ms = tonumber(m[5] or '0'), tonumber(m[6] or '0')
local mark_seq, mark_bytes, mark_ms = tonumber(m[7] or '-1'), tonumber(m[8] or '0'), tonumber(m[9] or '0')
local time = redis.call('TIME')
local now = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(string.match(last_id, '^%d+')))
local young_count = redis.call('HLEN', ids[young])
local symbols = redis.call('HLEN', latest)
local counts = {}
local lanes = {}

local function text(number)
  return string.format('%.0f', number)
end

local function known(id)
  if window == 0 then
    return nil
  end
  local found = redis.call('HGET', ids[young], id) or redis.call('HGET', ids[1 - young], id)
  if not found then
    return nil
  end
  local print, at, name, ms = string.match(found, '^(%x+):(%d+):((%d+)%-%d+)$')
  if tonumber(ms) < now - window then
    return nil
  end
  return { print = print, seq = tonumber(at), id = name }
end

local function remember(id, print, name)
  if window == 0 then
    return
  end
  if now - young_ms > window or young_count >= generation_max then
    young, young_ms, young_count = 1 - young, now, 0
    redis.call('UNLINK', ids[young])
  end
  redis.call('HSET', ids[young], id, print .. ':' .. text(seq) .. ':' .. name)
  young_count = young_count + 1
end

local function count_types()
  for kind, count in pairs(counts) do
    if redis.call('HEXISTS', types, kind) == 0 and redis.call('HLEN', types) >= TYPES_MAX then
      kind = ''
    end
    redis.call('HINCRBY', types, kind, count)
  end
  counts = {}
end

local function anchor(name)
  count_types()
  redis.call('ZADD', anchors, text(seq), name)
  redis.call('HSET', marks, text(seq), cjson.encode({ text(bytes), redis.call('HGETALL', types) }))
  mark_seq, mark_bytes, mark_ms = seq, bytes, now
end

-- The next number in a partition.
local function lane(partition)
  local last = lanes[partition] or tonumber(redis.call('HGET', meta, 'partition:' .. partition) or '0')
  lanes[partition] = last + 1
  return text(last + 1)
end

local function store(at)
  local id, print, kind, symbol, event = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 7]
  local partition, name = ARGV[at + 8], nil
  seq = seq + 1
  if partition == '' then
    name = redis.call('XADD', stream, '*', 'event', event, 'seq', text(seq), 'type', kind, 'symbol', symbol,
      'source', ARGV[at + 4], 'time', ARGV[at + 5], 'event_id', id, 'print', print)
  else
    name = redis.call('XADD', stream, '*', 'event', event, 'seq', text(seq), 'type', kind, 'symbol', symbol,
      'source', ARGV[at + 4], 'time', ARGV[at + 5], 'event_id', id, 'print', print, 'partition', partition,
      'partition_seq', lane(partition))
  end
  if mark_seq < 0 or seq - mark_seq >= step_events or bytes - mark_bytes >= step_bytes or now - mark_ms >= step_ms then
    anchor(name)
  end
  remember(id, print, name)
  bytes = bytes + #event
  counts[kind] = (counts[kind] or 0) + 1
  last_id = name
  if ARGV[at + 6] == '1' then
    if redis.call('HEXISTS', latest, symbol) == 1 then
      redis.call('HSET', latest, symbol, name)
    elseif symbols < SYMBOLS_MAX then
      redis.call('HSET', latest, symbol, name)
      symbols = symbols + 1
    end
  end
  return { print = print, seq = seq, id = name }
end

local out = {}
local function say(word, place)
  out[#out + 1] = word
  out[#out + 1] = place and place.seq or 0
  out[#out + 1] = place and place.id or '0-0'
end

local at = 8
local before = seq
for _ = 1, tonumber(ARGV[7]) do
  local count, atomic = tonumber(ARGV[at]), ARGV[at + 1] == '1'
  at = at + 2
  local clash = false
  if atomic then
    local prints = {}
    for i = 0, count - 1 do
      local id, print = ARGV[at + i * FIELDS], ARGV[at + i * FIELDS + 1]
      local found = known(id)
      local first = prints[id] or (found and found.print)
      clash = clash or (first and first ~= print)
      prints[id] = first or print
    end
  end
  local prints = {}
  for i = 0, count - 1 do
    local place = at + i * FIELDS
    local id, print = ARGV[place], ARGV[place + 1]
    local found = known(id)
    if clash then
      local first = (found and found.print) or prints[id]
      if first and first ~= print then
        say('C', found)
      elseif found then
        say('D', found)
      else
        say('W')
      end
      prints[id] = first or print
    elseif not found then
      say('S', store(place))
    else
      say(found.print == print and 'D' or 'C', found)
    end
  end
  at = at + count * FIELDS
end

if seq > before then
  count_types()
  for partition, last in pairs(lanes) do
    redis.call('HSET', meta, 'partition:' .. partition, text(last))
  end
  redis.call('HSET', meta, 'seq', text(seq), 'id', last_id, 'bytes', text(bytes), 'young', young, 'young_ms',
    text(young_ms), 'mark_seq', text(mark_seq), 'mark_bytes', text(mark_bytes), 'mark_ms', text(mark_ms))
end
return out
