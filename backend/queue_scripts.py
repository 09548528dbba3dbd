"""What the backend does to jobs in Redis, each step one Lua script and so all or nothing.

The workers' side is in worker/scripts.py; both use RQ's own places and formats, and Redis's clock.
"""

from __future__ import annotations

from rq.defaults import RQ_KEY_PREFIX

_HEAD = f"""
local rq = '{RQ_KEY_PREFIX}:'
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
"""

ENQUEUE = (
    _HEAD
    + """
-- KEYS: waiting. ARGV: id, queue, urgent queue, waiter or '', milliseconds that the waiter may wait, seconds before
-- a failed job is tried anew, anew (1: even a finished one), then the fields of the job's hash.
-- Returns 'new', or the status that the job already has.
local id, queue, urgent = ARGV[1], ARGV[2], ARGV[3]
local job = rq .. 'job:' .. id
local status, origin, ended = unpack(redis.call('HMGET', job, 'status', 'origin', 'ended'))
local live = status == 'queued' or status == 'started' or status == 'scheduled'
if live then
  if status == 'queued' and queue == urgent and origin ~= urgent
     and redis.call('LREM', rq .. 'queue:' .. origin, 1, id) > 0 then
    redis.call('HSET', job, 'origin', urgent)  -- somebody opened a task that waits among the bulk
    redis.call('RPUSH', rq .. 'queue:' .. urgent, id)
  end
elseif status == 'finished' and ARGV[7] ~= '1' and redis.call('EXISTS', rq .. 'results:' .. id) == 1 then
  return 'finished'
elseif status == 'failed' and now - tonumber(ended or '0') < tonumber(ARGV[6]) then
  return 'failed'
else
  if origin then
    redis.call('ZREM', rq .. 'finished:' .. origin, id)
    redis.call('ZREM', rq .. 'failed:' .. origin, id)
  end
  redis.call('DEL', job, rq .. 'results:' .. id)
  redis.call('HSET', job, 'queued', now, unpack(ARGV, 8))
  redis.call('RPUSH', rq .. 'queue:' .. queue, id)
  status = 'new'
end
if ARGV[4] ~= '' then
  redis.call('SADD', KEYS[1], ARGV[4])
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
end
return status
"""
)

ANSWER = (
    _HEAD
    + """
-- KEYS: outbox, sending. ARGV: id, task. The stored outcome of a finished job, for whoever answers with it now: it
-- leaves the outbox. Nothing while it is being sent to Label Studio.
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return false end
redis.call('HDEL', KEYS[1], ARGV[2])
return redis.call('XREVRANGE', rq .. 'results:' .. ARGV[1], '+', '-', 'COUNT', 1)
"""
)

LEAVE = (
    _HEAD
    + """
-- KEYS: waiting. ARGV: id, waiter. Stop waiting. Nothing: the job's result goes to the outbox, if it is not there
-- already. Else its outcome: the worker has left it to the waiter.
if redis.call('SREM', KEYS[1], ARGV[2]) == 1 then return false end
return redis.call('XREVRANGE', rq .. 'results:' .. ARGV[1], '+', '-', 'COUNT', 1)
"""
)

CANCEL = (
    _HEAD
    + """
-- KEYS: waiting. ARGV: id. Takes a job out of wherever it is; a worker that runs it finds its lease lost.
-- Returns the status it had, or nothing.
local id = ARGV[1]
local job = rq .. 'job:' .. id
local status, queue = unpack(redis.call('HMGET', job, 'status', 'origin'))
if not status then return false end
redis.call('LREM', rq .. 'queue:' .. queue, 0, id)
redis.call('ZREM', rq .. 'scheduled:' .. queue, id)
redis.call('ZREM', rq .. 'failed:' .. queue, id)
redis.call('ZREM', rq .. 'finished:' .. queue, id)
if status == 'started' then
  local cursor = '0'
  repeat
    local found = redis.call('ZSCAN', rq .. 'wip:' .. queue, cursor, 'MATCH', id .. ':*', 'COUNT', 1000)
    cursor = found[1]
    for i = 1, #found[2], 2 do redis.call('ZREM', rq .. 'wip:' .. queue, found[2][i]) end
  until cursor == '0'
end
redis.call('DEL', job, rq .. 'results:' .. id, KEYS[1])
return status
"""
)

RETRY = (
    _HEAD
    + """
-- ARGV: id, tries. A failed job back into its queue, with all its tries. Returns 1, or 0 if it has not failed.
local id = ARGV[1]
local job = rq .. 'job:' .. id
local status, queue = unpack(redis.call('HMGET', job, 'status', 'origin'))
if status ~= 'failed' then return 0 end
redis.call('ZREM', rq .. 'failed:' .. queue, id)
redis.call('DEL', rq .. 'results:' .. id)
redis.call('HDEL', job, 'tries', 'reason', 'ended')
redis.call('HSET', job, 'status', 'queued', 'retries_left', ARGV[2], 'queued', now)
redis.call('PERSIST', job)
redis.call('RPUSH', rq .. 'queue:' .. queue, id)
return 1
"""
)
