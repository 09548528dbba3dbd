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
-- KEYS: outbox, sending, claims, claimed. ARGV: id, project, task ('' if its result is not for Label Studio),
-- seconds, ttl. The stored outcome of a finished job, for whoever answers with it now: it leaves the outbox, and
-- would be put back after those seconds. Nothing while it is being sent to Label Studio.
local task = ARGV[3]
if redis.call('HEXISTS', KEYS[2], task) == 1 then return false end
local result = redis.call('HGET', KEYS[1], task)
if result then
  local name = ARGV[2] .. ':' .. task .. ':' .. ARGV[1]
  redis.call('HDEL', KEYS[1], task)
  redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), name)
  redis.call('HSET', KEYS[4], name, result)
  redis.call('EXPIRE', KEYS[3], ARGV[5])
  redis.call('EXPIRE', KEYS[4], ARGV[5])
end
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
-- KEYS: outbox, sending, claims, claimed, then names of queues. ARGV: what ids of the project's jobs begin with,
-- what names of claims begin with, what keys of those who wait begin with, all (1), then tasks unless all. Takes
-- jobs out of wherever they are, each list rewritten once; a worker that runs one finds its lease lost. Results
-- that are not in Label Studio go too. Returns how many jobs there were.
local prefix, claim, waiting, all, tasks, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', {}, 0
for i = 5, #ARGV do tasks[ARGV[i]] = true end
local function mine(text, start)
  if string.sub(text, 1, #start) ~= start then return false end
  return all or tasks[string.match(text, '^%d+', #start + 1)] == true
end
local function gone(id)
  count = count + redis.call('UNLINK', rq .. 'job:' .. id)
  redis.call('UNLINK', rq .. 'results:' .. id, waiting .. id)
end
for i = 5, #KEYS do
  local list, kept, found = rq .. 'queue:' .. KEYS[i], {}, false
  for _, id in ipairs(redis.call('LRANGE', list, 0, -1)) do
    if mine(id, prefix) then
      gone(id)
      found = true
    else
      kept[#kept + 1] = id
    end
  end
  if found then
    redis.call('DEL', list)
    for first = 1, #kept, 1000 do
      redis.call('RPUSH', list, unpack(kept, first, math.min(first + 999, #kept)))
    end
  end
  for _, kind in ipairs({'scheduled:', 'wip:'}) do
    for _, entry in ipairs(redis.call('ZRANGE', rq .. kind .. KEYS[i], 0, -1)) do
      if mine(entry, prefix) then
        redis.call('ZREM', rq .. kind .. KEYS[i], entry)
        gone(string.match(entry, '^[^:]*'))
      end
    end
  end
end
for _, name in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  if mine(name, claim) then
    redis.call('ZREM', KEYS[3], name)
    redis.call('HDEL', KEYS[4], name)
  end
end
if all then
  redis.call('DEL', KEYS[1], KEYS[2])
else
  for task in pairs(tasks) do
    redis.call('HDEL', KEYS[1], task)
    redis.call('HDEL', KEYS[2], task)
  end
end
return count
"""
)

RETRY = (
    _HEAD
    + """
-- ARGV: id, tries. A job that failed, or whose images could not be used, back into its queue, with all its tries.
-- Returns 1, or 0 if it is none of these.
local id = ARGV[1]
local job = rq .. 'job:' .. id
local status, queue, troubled = unpack(redis.call('HMGET', job, 'status', 'origin', 'troubled'))
if status ~= 'failed' and not (status == 'finished' and troubled) then return 0 end
redis.call('ZREM', rq .. status .. ':' .. queue, id)
redis.call('DEL', rq .. 'results:' .. id)
redis.call('HDEL', job, 'tries', 'reason', 'ended', 'by', 'troubled')
redis.call('HSET', job, 'status', 'queued', 'retries_left', ARGV[2], 'queued', now)
redis.call('PERSIST', job)
redis.call('RPUSH', rq .. 'queue:' .. queue, id)
return 1
"""
)
