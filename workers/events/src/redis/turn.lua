#!lua flags=allow-oom
-- Takes the turn over the consumer groups, if nobody else has it, and says what there is to catch up with.
-- KEYS: turn, notes meta, notes, meta of the stream. ARGV: who, ms, seq and mark of the newest note known.
-- Answer: 1, seq of the newest note, 1 when the known one is not there, ms since 1970, seq and message id of the
-- stream; or 0 and how many ms the turn of another worker may last.
local turn, meta, notes, stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder = redis.call('GET', turn)
if holder and holder ~= ARGV[1] then
  return { 0, math.max(redis.call('PTTL', turn), 0) }
end
redis.call('SET', turn, ARGV[1], 'PX', ARGV[2])
local lost = 0
if ARGV[3] ~= '0' then
  lost = 1
  local found = redis.call('XRANGE', notes, ARGV[3] .. '-0', ARGV[3] .. '-0')[1]
  for i = 1, found and #found[2] or 0, 2 do
    if found[2][i] == 'event_id' and found[2][i + 1] == ARGV[4] then
      lost = 0
    end
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local m = redis.call('HMGET', stream, 'seq', 'id')
return { 1, tonumber(redis.call('HGET', meta, 'seq') or '0'), lost, now, tonumber(m[1] or '0'), m[2] or '0-0' }
