#!lua
-- Stores one batch of events: each event once (by its id inside the window), under contiguous seqs.
-- KEYS: stream, meta, anchors, marks, types, latest, ids of even and of odd generations.
-- ARGV: epoch, window ms, ids a generation at most, events/bytes/ms between anchors at most, a letter an event: `f` when
--       nobody else can have its id, else `k`; number of groups that are stored all or not at all, for each of them its
--       first event and how many it has; then for each event:
--       event id, fingerprint, type, symbol, source, time in us, the event, and its partition where the stream is
--       divided (as many words more as there are events).
-- Answer: the seq before the first event stored; then for each event its message id when it is stored (with its number
-- in its partition, where there are some), else D|C|W (duplicate, conflict, withheld), seq, message id.
local stream, meta, anchors, marks, types, latest = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local ids = { [0] = KEYS[7], [1] = KEYS[8] }
local call, format, match = redis.call, string.format, string.match
local TYPES_MAX, SYMBOLS_MAX, WORDS_MAX = 512, 10000, 2000
local window, generation_max = tonumber(ARGV[2]), tonumber(ARGV[3])
local step_events, step_bytes, step_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local fresh, groups = ARGV[7], tonumber(ARGV[8])
local count, base = #fresh, 9 + 2 * groups
local width = (#ARGV - base + 1) / count

local m = call('HMGET', meta, 'epoch', 'seq', 'id', 'bytes', 'young', 'young_ms', 'mark_seq', 'mark_bytes', 'mark_ms')
if m[1] ~= ARGV[1] then
  return redis.error_reply('EPOCH the stored events are not those that were known')
end
local seq, last_id, bytes = tonumber(m[2]), m[3], tonumber(m[4])
local young, young_ms = tonumber(m[5] or '0'), tonumber(m[6] or '0')
local mark_seq, mark_bytes, mark_ms = tonumber(m[7] or '-1'), tonumber(m[8] or '0'), tonumber(m[9] or '0')
local time = call('TIME')
local now = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(match(last_id, '^%d+')))
local before = seq
local counts, lanes, newest = {}, {}, {}
local found, remembered = {}, {}

local function text(number)
  return format('%d', number)
end

-- Calls a command with many words in pieces.
local function in_pieces(command, key, words, each)
  for at = 1, #words, WORDS_MAX do
    local piece = call(command, key, unpack(words, at, math.min(at + WORDS_MAX - 1, #words)))
    for i = 1, each and #piece or 0 do
      each(words[at + i - 1], piece[i])
    end
  end
end

-- What the window knows of the ids that somebody may have used.
local function look_up()
  local names = {}
  for i = 1, window > 0 and count or 0 do
    if fresh:byte(i) == 107 then
      names[#names + 1] = ARGV[base + (i - 1) * width]
    end
  end
  for generation = 0, #names > 0 and 1 or -1, 1 do
    if call('HLEN', ids[generation]) > 0 then
      in_pieces('HMGET', ids[generation], names, function(id, value)
        if value then
          local print, at, name, ms = match(value, '^(%x+):(%d+):((%d+)%-%d+)$')
          if tonumber(ms) >= now - window and not (found[id] and found[id].seq > tonumber(at)) then
            found[id] = { print = print, seq = tonumber(at), id = name }
          end
        end
      end)
    end
  end
end

local function remember()
  if #remembered == 0 then
    return
  end
  if now - young_ms > window or call('HLEN', ids[young]) >= generation_max then
    young, young_ms = 1 - young, now
    call('UNLINK', ids[young])
  end
  in_pieces('HSET', ids[young], remembered)
end

local function count_types()
  for kind, number in pairs(counts) do
    if call('HEXISTS', types, kind) == 0 and call('HLEN', types) >= TYPES_MAX then
      kind = ''
    end
    call('HINCRBY', types, kind, number)
  end
  counts = {}
end

local function anchor(name)
  count_types()
  call('ZADD', anchors, text(seq), name)
  call('HSET', marks, text(seq), cjson.encode({ text(bytes), call('HGETALL', types) }))
  mark_seq, mark_bytes, mark_ms = seq, bytes, now
end

-- The next number in a partition.
local function lane(partition)
  local last = lanes[partition] or tonumber(call('HGET', meta, 'partition:' .. partition) or '0')
  lanes[partition] = last + 1
  return last + 1
end

local function note_newest()
  local symbols, places, room = {}, {}, nil
  for symbol in pairs(newest) do
    symbols[#symbols + 1] = symbol
  end
  in_pieces('HMGET', latest, symbols, function(symbol, known)
    room = room or SYMBOLS_MAX - call('HLEN', latest)
    if not known then
      room = room - 1
    end
    if known or room >= 0 then
      places[#places + 1] = symbol
      places[#places + 1] = newest[symbol]
    end
  end)
  in_pieces('HSET', latest, places)
end

local function store(at, is_fresh)
  local id, print, kind, symbol, event = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 6]
  local name, number
  seq = seq + 1
  local place = text(seq)
  if width == 7 then
    name = call('XADD', stream, '*', 'event', event, 'seq', place, 'type', kind, 'symbol', symbol,
      'source', ARGV[at + 4], 'time', ARGV[at + 5], 'event_id', id, 'print', print)
  else
    number = lane(ARGV[at + 7])
    name = call('XADD', stream, '*', 'event', event, 'seq', place, 'type', kind, 'symbol', symbol,
      'source', ARGV[at + 4], 'time', ARGV[at + 5], 'event_id', id, 'print', print, 'partition', ARGV[at + 7],
      'partition_seq', number)
  end
  if mark_seq < 0 or seq - mark_seq >= step_events or bytes - mark_bytes >= step_bytes or now - mark_ms >= step_ms then
    anchor(name)
  end
  if window > 0 then
    remembered[#remembered + 1] = id
    remembered[#remembered + 1] = print .. ':' .. place .. ':' .. name
    if not is_fresh then
      found[id] = { print = print, seq = seq, id = name }
    end
  end
  bytes = bytes + #event
  counts[kind] = (counts[kind] or 0) + 1
  last_id = name
  if kind == 'market_data_update' and symbol ~= '' then
    newest[symbol] = name
  end
  return number and { name, number } or name
end

look_up()
local out = { before }
local group, first, behind = 0, count + 1, 0
local function next_group()
  group, first, behind = group + 1, count + 1, 0
  if group <= groups then
    first = tonumber(ARGV[7 + 2 * group])
    behind = first + tonumber(ARGV[8 + 2 * group])
  end
end

-- Whether an event of a group that is stored whole or not at all is another one than the id has had.
local function clashes()
  local prints = {}
  for i = first, behind - 1 do
    local at = base + (i - 1) * width
    local id, print = ARGV[at], ARGV[at + 1]
    local known = prints[id] or (found[id] and found[id].print)
    if known and known ~= print then
      return true
    end
    prints[id] = print
  end
  return false
end

next_group()
local clash, prints = false, {}
for i = 1, count do
  local at = base + (i - 1) * width
  local id, print = ARGV[at], ARGV[at + 1]
  if i == behind then
    next_group()
    clash = false
  end
  if i == first then
    clash, prints = clashes(), {}
  end
  local known = found[id]
  if clash then
    local had = (known and known.print) or prints[id]
    local word = had and had ~= print and 'C' or known and 'D' or 'W'
    out[i + 1] = { word, known and known.seq or 0, known and known.id or '0-0' }
    prints[id] = had or print
  elseif known then
    out[i + 1] = { known.print == print and 'D' or 'C', known.seq, known.id }
  else
    out[i + 1] = store(at, fresh:byte(i) == 102)
  end
end

if seq > before then
  remember()
  note_newest()
  count_types()
  for partition, last in pairs(lanes) do
    call('HSET', meta, 'partition:' .. partition, text(last))
  end
  call('HSET', meta, 'seq', text(seq), 'id', last_id, 'bytes', text(bytes), 'young', young, 'young_ms',
    text(young_ms), 'mark_seq', text(mark_seq), 'mark_bytes', text(mark_bytes), 'mark_ms', text(mark_ms))
end
return out
