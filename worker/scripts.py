"""The moves of a job between its places in Redis, each one Lua script and so all or nothing.

RQ's own places and formats are used throughout, so that its tools show the truth: the queue's list, the
`wip` set of running jobs scored by the end of their lease, the sets of finished, failed and scheduled jobs,
and the stream of a job's results. A job is in exactly one of them at any moment; where RQ takes two steps
(pop, then start), a worker killed in between loses the job, so here there is one. Time is Redis's own:
clocks of different machines do not matter.

Fields are added to RQ's job hash: `tries` (times started), `ended` (unix time), `reason` (of a failure), `suspect`
(its worker died with it, or its batch raised), `by` (the execution that ended its last try).
"""

from __future__ import annotations

from rq.defaults import RQ_KEY_PREFIX

_HEAD = f"""
local rq = '{RQ_KEY_PREFIX}:'
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
"""

TAKE = (
    _HEAD
    + """
-- KEYS: names of queues, most urgent first. ARGV: worker, execution, lease, holding, now as text, a limit for
-- each queue. A suspect may be what killed its worker, so it is taken only by a worker that holds nothing else, and
-- then alone. Where one is next, nothing of the less urgent queues is taken either: hands that are always full of
-- bulk would never be free for it, nor for the urgent jobs behind it.
local worker, execution, lease, holding, written = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local taken = {}
for i, queue in ipairs(KEYS) do
  local list, limit = rq .. 'queue:' .. queue, tonumber(ARGV[5 + i])
  while limit > 0 do
    local id = redis.call('LINDEX', list, 0)
    if not id then break end
    local job = rq .. 'job:' .. id
    local status, tries, suspect = unpack(redis.call('HMGET', job, 'status', 'tries', 'suspect'))
    if status ~= 'queued' then
      redis.call('LPOP', list)  -- cancelled, expired, or queued twice
    else
      if suspect and (holding > 0 or #taken > 0) then return taken end
      redis.call('LPOP', list)
      redis.call('HSET', job, 'status', 'started', 'worker_name', worker, 'started_at', written,
                 'last_heartbeat', written, 'started', now)
      redis.call('HINCRBY', job, 'tries', 1)
      redis.call('PERSIST', job)
      redis.call('ZADD', rq .. 'wip:' .. queue, now + lease, id .. ':' .. execution)
      local fields = redis.call('HMGET', job, 'data', 'retries_left', 'timeout', 'queued', 'result_ttl',
                                'failure_ttl')
      taken[#taken + 1] = {queue, id, tostring(tonumber(tries or '0') + 1), fields[1] or '', fields[2] or '0',
                           fields[3] or '0', tostring(now - tonumber(fields[4] or now)), fields[5] or '0',
                           fields[6] or '0', suspect or '0'}
      limit = limit - 1
      if suspect then return taken end
    end
  end
end
return taken
"""
)

_SUPERSEDED = """
-- Whether a task's result that is there is of a version that predicts now, and another is of one that did before.
local function superseded(other, there, tuned, announced)
  if not there then return false end
  local function field(text, name)  -- nil where it cannot be read
    local ok, value = pcall(cjson.decode, text)
    return ok and type(value) == 'table' and value[name] or nil
  end
  local function current(result)
    local version = field(result, 'model_version')
    if not version then return false end
    return version == redis.call('GET', tuned) or version == field(redis.call('GET', announced), 'version')
  end
  return not current(other) and current(there)
end
"""

FINISH = (
    _HEAD
    + _SUPERSEDED
    + """
-- KEYS: waiting, outbox, outboxes, claims, claimed, failures, failing, the project's tuning, the announced model,
-- the counters (here, because a worker that is killed tells nothing any more of what it did).
-- ARGV: queue, id, execution, ttl, ended as text, project, task, push ('0' for a result that is of no use to Label
-- Studio later), result, ttl of results on their way, entry for the list of failures ('' if all is well), most of
-- them, then the fields of RQ's result. 0: the lease is lost, another worker has or had the job; nothing is
-- written. 1 also where this was done before and the answer did not arrive.
local queue, id, ttl = ARGV[1], ARGV[2], tonumber(ARGV[4])
local job, results = rq .. 'job:' .. id, rq .. 'results:' .. id
if redis.call('ZREM', rq .. 'wip:' .. queue, id .. ':' .. ARGV[3]) == 0 then
  local status, by = unpack(redis.call('HMGET', job, 'status', 'by'))
  return (status == 'finished' and by == ARGV[3]) and 1 or 0
end
if redis.call('EXISTS', job) == 0 then return 0 end
redis.call('HSET', job, 'status', 'finished', 'ended_at', ARGV[5], 'ended', now, 'by', ARGV[3])
redis.call('HDEL', job, 'reason', 'exc_info', 'troubled')
redis.call('EXPIRE', job, ttl)
redis.call('HINCRBY', KEYS[10], 'jobs:' .. queue .. ':finished', 1)
redis.call('DEL', results)
redis.call('XADD', results, '*', unpack(ARGV, 13))
redis.call('EXPIRE', results, ttl)
redis.call('ZADD', rq .. 'finished:' .. queue, now + ttl, id)
local task, name = ARGV[6] .. ':' .. ARGV[7], ARGV[6] .. ':' .. ARGV[7] .. ':' .. id
local left = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
if ARGV[8] ~= '0' then
  if left > 0 then  -- somebody waits, and may be dead
    redis.call('ZADD', KEYS[4], now + left / 1000, name)
    redis.call('HSET', KEYS[5], name, ARGV[9])
    redis.call('EXPIRE', KEYS[4], ARGV[10])
    redis.call('EXPIRE', KEYS[5], ARGV[10])
  elseif not superseded(ARGV[9], redis.call('HGET', KEYS[2], ARGV[7]), KEYS[8], KEYS[9]) then
    redis.call('HSET', KEYS[2], ARGV[7], ARGV[9])
    redis.call('EXPIRE', KEYS[2], ARGV[10])
    redis.call('SADD', KEYS[3], ARGV[6])
  end
end
local before = redis.call('HGET', KEYS[7], task)
if before then
  redis.call('LREM', KEYS[6], 1, before)
  redis.call('HDEL', KEYS[7], task)
end
if ARGV[11] ~= '' then
  redis.call('HSET', job, 'troubled', '1')
  redis.call('LPUSH', KEYS[6], ARGV[11])
  redis.call('HSET', KEYS[7], task, ARGV[11])
  while redis.call('LLEN', KEYS[6]) > tonumber(ARGV[12]) do
    local old = cjson.decode(redis.call('RPOP', KEYS[6]))
    redis.call('HDEL', KEYS[7], string.format('%d:%d', old.project, old.task))
  end
end
return 1
"""
)

FAIL = (
    _HEAD
    + """
-- KEYS: the counters.
-- ARGV: queue, id, execution, again (1: while tries are left), delay, expired (1: only if the lease has ended),
-- ttl, ended as text, reason, suspect (1: the job may be what killed its worker or broke its batch), then the
-- fields of RQ's result. Returns 'lost', 'queued', 'scheduled' or 'failed'; asked again, because the answer did not
-- arrive, what became of the job.
local queue, id, delay = ARGV[1], ARGV[2], tonumber(ARGV[5])
local wip, entry, job = rq .. 'wip:' .. queue, id .. ':' .. ARGV[3], rq .. 'job:' .. id
local lease = redis.call('ZSCORE', wip, entry)
if not lease and ARGV[6] ~= '1' then
  local status, by = unpack(redis.call('HMGET', job, 'status', 'by'))
  if by == ARGV[3] and (status == 'queued' or status == 'scheduled' or status == 'failed') then return status end
end
if not lease or (ARGV[6] == '1' and tonumber(lease) > now) then return 'lost' end
redis.call('ZREM', wip, entry)
if redis.call('EXISTS', job) == 0 then return 'lost' end
if ARGV[6] == '1' and redis.call('HGET', job, 'status') ~= 'started' then return 'lost' end
redis.call('HSET', job, 'reason', ARGV[9], 'by', ARGV[3])
if ARGV[10] == '1' then redis.call('HSET', job, 'suspect', '1') end
local left = tonumber(redis.call('HGET', job, 'retries_left') or '0')
if ARGV[4] == '1' and left > 0 then
  redis.call('HSET', job, 'retries_left', left - 1)
  redis.call('HINCRBY', KEYS[1], 'jobs:' .. queue .. ':retried', 1)
  if delay > 0 then
    redis.call('HSET', job, 'status', 'scheduled')
    redis.call('ZADD', rq .. 'scheduled:' .. queue, now + delay, id)
    return 'scheduled'
  end
  redis.call('HSET', job, 'status', 'queued')
  redis.call('RPUSH', rq .. 'queue:' .. queue, id)
  return 'queued'
end
local ttl, results = tonumber(ARGV[7]), rq .. 'results:' .. id
redis.call('HSET', job, 'status', 'failed', 'ended_at', ARGV[8], 'ended', now)
redis.call('HINCRBY', KEYS[1], 'jobs:' .. queue .. ':failed', 1)
redis.call('EXPIRE', job, ttl)
redis.call('DEL', results)
redis.call('XADD', results, '*', unpack(ARGV, 11))
redis.call('EXPIRE', results, ttl)
redis.call('ZADD', rq .. 'failed:' .. queue, now + ttl, id)
return 'failed'
"""
)

GIVE_BACK = (
    _HEAD
    + """
-- ARGV: queue, id, execution. Back to the front of its queue, as if it had not been taken.
local queue, id = ARGV[1], ARGV[2]
if redis.call('ZREM', rq .. 'wip:' .. queue, id .. ':' .. ARGV[3]) == 0 then return 0 end
local job = rq .. 'job:' .. id
if redis.call('EXISTS', job) == 0 then return 0 end
redis.call('HSET', job, 'status', 'queued')
redis.call('HINCRBY', job, 'tries', -1)
redis.call('LPUSH', rq .. 'queue:' .. queue, id)
return 1
"""
)

RENEW = (
    _HEAD
    + """
-- ARGV: lease, then queue and entry of each job held. Returns those whose lease is lost.
-- Taken out before it is put in: a Redis that is full refuses whatever begins by adding something, and then leases
-- would end while their jobs run.
local lost = {}
for i = 2, #ARGV, 2 do
  local wip = rq .. 'wip:' .. ARGV[i]
  if redis.call('ZREM', wip, ARGV[i + 1]) == 1 then
    redis.call('ZADD', wip, now + tonumber(ARGV[1]), ARGV[i + 1])
  else
    lost[#lost + 1] = ARGV[i + 1]
  end
end
return lost
"""
)

DUE = (
    _HEAD
    + _SUPERSEDED
    + """
-- KEYS: claims, claimed, outboxes, the announced model, then names of queues. ARGV: what keys of outboxes begin
-- with, ttl of results on their way, what keys of projects' tunings begin with. Jobs whose pause is over go back
-- into their queue; what has ended so long ago that it is gone leaves the lists of finished and failed jobs;
-- results left to somebody who did not answer with them go to the outbox. Returns how many jobs went back.
local moved = 0
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], 0, now, 'LIMIT', 0, 500)) do
  local project, task = string.match(name, '^(%d+):(%d+):')
  local result = redis.call('HGET', KEYS[2], name)
  local there = redis.call('HGET', ARGV[1] .. project, task)
  -- What is there was not left to anybody, so it came later, unless it is of an old version.
  if result and (not there or superseded(there, result, ARGV[3] .. project, KEYS[4])) then
    redis.call('HSET', ARGV[1] .. project, task, result)
    redis.call('EXPIRE', ARGV[1] .. project, ARGV[2])
    redis.call('SADD', KEYS[3], project)
  end
  redis.call('ZREM', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
end
for i = 5, #KEYS do
  local queue = KEYS[i]
  redis.call('ZREMRANGEBYSCORE', rq .. 'finished:' .. queue, 0, now)
  redis.call('ZREMRANGEBYSCORE', rq .. 'failed:' .. queue, 0, now)
  local set = rq .. 'scheduled:' .. queue
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', set, 0, now, 'LIMIT', 0, 500)) do
    redis.call('ZREM', set, id)
    if redis.call('HGET', rq .. 'job:' .. id, 'status') == 'scheduled' then
      redis.call('HSET', rq .. 'job:' .. id, 'status', 'queued')
      redis.call('RPUSH', rq .. 'queue:' .. queue, id)
      moved = moved + 1
    end
  end
end
return moved
"""
)

EXPIRED = (
    _HEAD
    + """
-- KEYS: names of queues. ARGV: a worker or ''. Entries of the wip sets whose lease has ended, at most 500 of a
-- queue, or all of that worker: queue, entry, seconds since the job was started, timeout, failure_ttl, worker.
local found, wanted = {}, ARGV[1]
local last, most = '+inf', -1
if wanted == '' then last, most = now, 500 end
for _, queue in ipairs(KEYS) do
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', rq .. 'wip:' .. queue, 0, last, 'LIMIT', 0, most)) do
    local id = string.match(entry, '^(.*):[^:]*$')
    local fields = redis.call('HMGET', rq .. 'job:' .. id, 'started', 'timeout', 'failure_ttl', 'worker_name')
    if wanted == '' or fields[4] == wanted then
      found[#found + 1] = {queue, entry, tostring(now - tonumber(fields[1] or now)), fields[2] or '0',
                           fields[3] or '0', fields[4] or ''}
    end
  end
end
return found
"""
)

STRAY = (
    _HEAD
    + """
-- KEYS: names of queues. ARGV: job ids that are said to be queued or started. Those that are in no place go
-- back into the queue they came from. Returns their ids.
local present = {}
for _, queue in ipairs(KEYS) do
  for _, id in ipairs(redis.call('LRANGE', rq .. 'queue:' .. queue, 0, -1)) do present[id] = true end
  for _, entry in ipairs(redis.call('ZRANGE', rq .. 'wip:' .. queue, 0, -1)) do
    present[string.match(entry, '^(.*):[^:]*$') or entry] = true
  end
end
local found = {}
for _, id in ipairs(ARGV) do
  local job = rq .. 'job:' .. id
  local status, queue = unpack(redis.call('HMGET', job, 'status', 'origin'))
  if not present[id] and (status == 'queued' or status == 'started') and queue then
    redis.call('LREM', rq .. 'queue:' .. queue .. ':intermediate', 0, id)
    redis.call('HSET', job, 'status', 'queued')
    redis.call('RPUSH', rq .. 'queue:' .. queue, id)
    found[#found + 1] = id
  end
end
return found
"""
)
