#!lua flags=allow-oom
-- Compares what is stored with the newest event that the caller knows of, and begins a new epoch when that is gone:
-- seqs and message ids then go on behind everything that was ever given.
-- KEYS: stream, meta, anchors, marks, types. ARGV: name of a new epoch, known seq, ms, n, group, how the stream is
-- divided into partitions (`symbol:4` or `none`).
-- Answer: epoch, seq, message id, 1 when events are lost.
local stream, meta, anchors, marks, types = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local known_seq = tonumber(ARGV[2])

local function parts(id)
  local ms, n = string.match(id, '^(%d+)%-(%d+)$')
  return { tonumber(ms), tonumber(n) }
end

local function later(a, b)
  return a[1] > b[1] or (a[1] == b[1] and a[2] > b[2])
end

local function name(id)
  return string.format('%.0f-%.0f', id[1], id[2])
end

local kind = redis.call('TYPE', stream)['ok']
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE the key of the stream holds something else')
end
local group = redis.pcall('XGROUP', 'CREATE', stream, ARGV[5], '$', 'MKSTREAM')
if type(group) == 'table' and group.err and not string.find(group.err, 'BUSYGROUP') then
  return group
end

local m = redis.call('HMGET', meta, 'epoch', 'seq', 'id', 'partitions')
local epoch, seq, last = m[1], tonumber(m[2] or '0'), parts(m[3] or '0-0')
if seq > 0 and (m[4] or 'none') ~= ARGV[6] then
  return redis.error_reply('PARTITIONS its events are divided into partitions as ' .. (m[4] or 'none') .. ', and '
    .. ARGV[6] .. ' is configured: a stream keeps its partitions')
end
if (m[4] or 'none') ~= ARGV[6] then
  redis.call('HSET', meta, 'partitions', ARGV[6])
end
local given = { 0, 0 }
local info = redis.call('XINFO', 'STREAM', stream)
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then
    given = parts(info[i + 1])
  end
end

local lost = epoch and later(last, given)
local known = { tonumber(ARGV[3]), tonumber(ARGV[4]) }
if known_seq > 0 and not lost then
  if not epoch or seq < known_seq then
    lost = true
  else
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if oldest and not later(parts(oldest[1]), known) then
      lost = true
      local found = redis.call('XRANGE', stream, name(known), name(known))[1]
      for i = 1, found and #found[2] or 0, 2 do
        if found[2][i] == 'seq' and tonumber(found[2][i + 1]) == known_seq then
          lost = false
        end
      end
    end
  end
end

if lost or not epoch then
  local before = seq
  epoch, seq = ARGV[1], math.max(seq, known_seq)
  -- Which partitions the lost events were in is not known: each goes on behind all that it can have given.
  for partition = 0, tonumber(string.match(ARGV[6], ':(%d+)$') or '0') - 1 do
    local head = tonumber(redis.call('HGET', meta, 'partition:' .. partition) or '0')
    redis.call('HSET', meta, 'partition:' .. partition, string.format('%.0f', head + seq - before))
  end
  for _, other in ipairs({ known, given }) do
    if later(other, last) then
      last = other
    end
  end
  if later(last, given) then
    redis.call('XSETID', stream, name(last))
  end
  if redis.call('XLEN', stream) == 0 or m[1] == false then
    redis.call('DEL', anchors, marks, types)
    redis.call('HSET', meta, 'bytes', '0')
  end
  redis.call('HDEL', meta, 'mark_seq', 'mark_bytes', 'mark_ms')
  redis.call('HSET', meta, 'epoch', epoch, 'seq', string.format('%.0f', seq), 'id', name(last))
end
return { epoch, seq, name(last), lost and 1 or 0 }
