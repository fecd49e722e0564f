#!lua
-- Writes notes of the consumer groups down, all of them, for who has the turn.
-- KEYS: turn, notes meta, notes. ARGV: who, ms, mark; then for each note: type, symbol, source, time in us, text.
-- Answer: seq of the last one.
local turn, meta, notes = KEYS[1], KEYS[2], KEYS[3]
if redis.call('GET', turn) ~= ARGV[1] then
  return redis.error_reply('FENCED another worker has the turn')
end
redis.call('PEXPIRE', turn, ARGV[2])
local seq = tonumber(redis.call('HGET', meta, 'seq') or '0')
for at = 4, #ARGV, 5 do
  seq = seq + 1
  local name = string.format('%.0f', seq)
  redis.call('XADD', notes, name .. '-0', 'event', ARGV[at + 4], 'seq', name, 'type', ARGV[at], 'symbol', ARGV[at + 1],
    'source', ARGV[at + 2], 'time', ARGV[at + 3], 'event_id', ARGV[3], 'print', '0')
end
redis.call('HSET', meta, 'seq', string.format('%.0f', seq))
return seq
