"""The Lua of the Redis queue: each script is one atomic step (https://redis.io/docs/latest/develop/interact/programmability/eval-intro/).

Keys, all below one hash tag so that they live in one slot of a cluster:

    call:ID           hash: the record, its request, its lease and fence
    queue:NS/FN       stream of the function's calls that are ready, read by the consumer group `jobs`; an entry is pending while its call runs
    waiting           hash NS/FN -> entries that nobody has read
    later, leases     sorted sets of ids by the time at which they become ready, or lapse
    callbacks         the same, by the time at which the callback is due
    all, ns:NS, fn:NS/FN, dead     sorted sets of ids by their number, for lists
    finished          sorted set of ids by their end
    open:TRIGGER      sorted set of a cron trigger's unfinished calls by number; instants, latest, marks: hashes by trigger
    key:NS/FN/KEY     hash: the call that an idempotency key stands for

Times stay the text that the caller gave: Lua would print them with too few digits.
"""

from __future__ import annotations

__all__ = ["AGAIN", "CALLBACKS", "CANCEL", "CLAIM_FIELDS", "EVENTS", "FINISH", "INSERT", "PREFIX", "PRUNE", "READY", "RECORD_FIELDS", "REDRIVE", "RENEW", "RESEAL", "TAKE"]  # fmt: skip

PREFIX = "faaslite:{calls}:"
EVENTS = f"{PREFIX}events"
RECORD_FIELDS = (
    "id", "ns", "fn", "trigger", "cron", "scheduled_at", "accepted_at", "started_at", "finished_at", "status", "attempts", "http_status", "result", "error",
    "due", "options", "tries", "callback",
)  # fmt: skip
CLAIM_FIELDS = (
    "id", "ns", "fn", "trigger", "cron", "scheduled_at", "accepted_at", "attempts", "refusals", "retries", "max_age", "fence", "request", "spent", "since",
    "options", "tries",
)  # fmt: skip

_COMMON = """
local P = 'faaslite:{calls}:'
local call = redis.call
local function has(id) return call('EXISTS', P..'call:'..id) == 1 end
local function field(id, name) return call('HGET', P..'call:'..id, name) or '' end
local function set(id, ...) call('HSET', P..'call:'..id, ...) end
local function tell(text) call('PUBLISH', P..'events', text) end
local function key_of(id) return field(id, 'ns')..'/'..field(id, 'fn') end
local function trigger_of(id) return key_of(id)..'/'..field(id, 'cron') end

local function status(id, to)
  local from = field(id, 'status')
  if from ~= '' then call('HINCRBY', P..'counts', from, -1) end
  call('HINCRBY', P..'counts', to, 1)
  set(id, 'status', to)
  return from
end

-- Into the stream of its function.
local function push(id)
  local key = key_of(id)
  if call('HINCRBY', P..'waiting', key, 1) == 1 then
    redis.pcall('XGROUP', 'CREATE', P..'queue:'..key, 'jobs', '0', 'MKSTREAM')
  end
  set(id, 'entry', call('XADD', P..'queue:'..key, '*', 'id', id))
end

-- Out of the stream, read or not.
local function pull(id, read)
  local entry = field(id, 'entry')
  if entry == '' then return end
  local key = key_of(id)
  local queue = P..'queue:'..key
  if read then call('XACK', queue, 'jobs', entry)
  else call('HINCRBY', P..'waiting', key, -1) end
  call('XDEL', queue, entry)
  set(id, 'entry', '')
  if call('XLEN', queue) == 0 then
    call('DEL', queue)
    call('HDEL', P..'waiting', key)
  end
end

-- Ready to run, unless its trigger's earlier calls go first.
local function ready(id)
  if field(id, 'overlap') == 'Queue' and field(id, 'cron') ~= '' then
    local first = call('ZRANGE', P..'open:'..trigger_of(id), 0, 0)[1]
    if first and first ~= id then return end
  end
  push(id)
end

local function finish(id, to, now, quiet)
  local from = status(id, to)
  pull(id, from == 'Running')
  call('ZREM', P..'leases', id)
  call('ZREM', P..'later', id)
  set(id, 'finished_at', now, 'owner', '', 'due', '')
  call('ZADD', P..'finished', now, id)
  if to == 'DeadLetter' then call('ZADD', P..'dead', field(id, 'seq'), id) end
  if field(id, 'cron') ~= '' then
    local open = P..'open:'..trigger_of(id)
    call('ZREM', open, id)
    local following = call('ZRANGE', open, 0, 0)[1]
    if following and field(following, 'overlap') == 'Queue' and field(following, 'status') == 'Queued'
       and field(following, 'entry') == '' and not call('ZSCORE', P..'later', following) then
      push(following)
      tell('queued ')
    end
  end
  if field(id, 'calls_back') == '1' then call('ZADD', P..'callbacks', now, id) end
  if not quiet then tell('ended '..id) end
end

local function held(id, fence)
  local found = call('HMGET', P..'call:'..id, 'status', 'fence')
  return found[1] == 'Running' and found[2] == fence
end
"""

# ARGV: count of calls, 18 fields each, then (trigger, through, uid and fingerprint) for each mark.
INSERT = (
    _COMMON
    + """
local count, answers, queued = tonumber(ARGV[1]), {}, false
local function at(n, field) return ARGV[1 + (n - 1) * 18 + field] end
for n = 1, count do
  if at(n, 16) ~= '' then
    local standing = call('HMGET', P..'key:'..at(n, 2)..'/'..at(n, 3)..'/'..at(n, 16), 'fingerprint', 'until')
    if standing[1] and tonumber(standing[2]) > tonumber(at(n, 8)) and standing[1] ~= at(n, 17) then
      return redis.error_reply('KEYREUSED '..at(n, 16))
    end
  end
end
local function insert(n)
  local id, fn, cron, overlap, now = at(n, 1), at(n, 2)..'/'..at(n, 3), at(n, 5), at(n, 6), at(n, 8)
  if at(n, 16) ~= '' then
    local key = P..'key:'..fn..'/'..at(n, 16)
    local standing = call('HMGET', key, 'call', 'until', 'fingerprint')
    if standing[1] and tonumber(standing[2]) > tonumber(now) then
      if standing[3] ~= at(n, 17) then return id, 'REUSED', '' end
      return standing[1], '', ''
    end
    if has(id) then return id, '', '' end
    call('HSET', key, 'call', id, 'fingerprint', at(n, 17), 'until', at(n, 18))
    call('EXPIRE', key, 86400)
  end
  if has(id) then return id, '', '' end
  local trigger = fn..'/'..cron
  if cron ~= '' and call('HSETNX', P..'instants', trigger..'@'..at(n, 7), id) == 0 then return id, '', '' end
  local seq = call('INCR', P..'seq')
  set(id, 'id', id, 'seq', seq, 'ns', at(n, 2), 'fn', at(n, 3), 'trigger', at(n, 4), 'cron', cron, 'overlap', overlap,
      'scheduled_at', at(n, 7), 'accepted_at', now, 'retries', at(n, 9), 'max_age', at(n, 10), 'error', at(n, 11), 'request', at(n, 12),
      'dead_letter', at(n, 13), 'options', at(n, 14), 'calls_back', at(n, 15), 'attempts', 0, 'refusals', 0, 'fence', 0, 'spent', 0,
      'since', now, 'due', now, 'entry', '')
  call('ZADD', P..'all', seq, id)
  call('ZADD', P..'ns:'..at(n, 2), seq, id)
  call('ZADD', P..'fn:'..fn, seq, id)
  local canceled = {}
  if cron ~= '' then
    local latest = call('HGET', P..'latest', trigger)
    if not latest or not has(latest) or tonumber(field(latest, 'scheduled_at')) < tonumber(at(n, 7)) then
      call('HSET', P..'latest', trigger, id)
    end
    if at(n, 11) == '' then
      local open = P..'open:'..trigger
      local earlier = call('ZRANGE', open, 0, -1)
      if overlap == 'Skip' and earlier[1] then
        local state = 'still waits'
        for _, each in ipairs(earlier) do if field(each, 'status') == 'Running' then state = 'still runs' end end
        set(id, 'error', 'the earlier call '..earlier[1]..' '..state)
        finish(id, 'Skipped', now)
        return id, 'Skipped', ''
      elseif overlap == 'Replace' then
        for _, each in ipairs(earlier) do
          set(each, 'error', 'replaced by call '..id)
          finish(each, 'Canceled', now)
          canceled[#canceled + 1] = each
        end
      end
      call('ZADD', open, seq, id)
    end
  end
  if at(n, 11) ~= '' then
    finish(id, 'Skipped', now)
    return id, 'Skipped', ''
  end
  status(id, 'Queued')
  ready(id)
  queued = true
  return id, 'Queued', table.concat(canceled, ' ')
end
for n = 1, count do
  local id, state, canceled = insert(n)
  answers[#answers + 1] = id
  answers[#answers + 1] = state
  answers[#answers + 1] = canceled
end
for n = 2 + count * 18, #ARGV, 3 do
  local before = call('HGET', P..'marks', ARGV[n])
  local through, whose = nil, nil
  if before then
    local cut = string.find(before, '\\n', 1, true)
    through, whose = tonumber(string.sub(before, 1, cut - 1)), string.sub(before, cut + 1)
  end
  if whose ~= ARGV[n + 2] or through < tonumber(ARGV[n + 1]) then
    call('HSET', P..'marks', ARGV[n], ARGV[n + 1]..'\\n'..ARGV[n + 2])
  end
end
if queued then tell('queued ') end
return answers
"""
)

# ARGV: now. What has become ready is moved; answers NS/FN, count, ...
READY = (
    _COMMON
    + """
for _, id in ipairs(call('ZRANGEBYSCORE', P..'leases', '-inf', ARGV[1], 'LIMIT', 0, 1000)) do
  call('ZREM', P..'leases', id)
  pull(id, true)
  status(id, 'Queued')
  set(id, 'due', ARGV[1], 'error', 'the process that ran it was lost')
  ready(id)
end
for _, id in ipairs(call('ZRANGEBYSCORE', P..'later', '-inf', ARGV[1], 'LIMIT', 0, 1000)) do
  call('ZREM', P..'later', id)
  ready(id)
end
return call('HGETALL', P..'waiting')
"""
)

# ARGV: owner, now, lease until, then NS/FN and how many, ...
TAKE = (
    _COMMON
    + """
local owner, now, found = ARGV[1], ARGV[2], {}
for n = 4, #ARGV, 2 do
  local key, wanted = ARGV[n], tonumber(ARGV[n + 1])
  while wanted > 0 do
    local read = redis.pcall('XREADGROUP', 'GROUP', 'jobs', owner, 'COUNT', wanted, 'STREAMS', P..'queue:'..key, '>')
    if not read or read.err or not read[1] then break end
    for _, entry in ipairs(read[1][2]) do
      local id = entry[2][2]
      call('HINCRBY', P..'waiting', key, -1)
      local age = call('HMGET', P..'call:'..id, 'max_age', 'since', 'dead_letter', 'error')
      if tonumber(age[1]) > 0 and tonumber(age[2]) + tonumber(age[1]) < tonumber(now) then
        local last = age[4] ~= '' and ', last: '..age[4] or ''
        set(id, 'error', 'could not be run within its maxAge'..last)
        call('HINCRBY', P..'waiting', key, 1)
        finish(id, age[3] == '1' and 'DeadLetter' or 'Expired', now)
      else
        wanted = wanted - 1
        status(id, 'Running')
        call('HINCRBY', P..'call:'..id, 'fence', 1)
        call('HINCRBY', P..'call:'..id, 'attempts', 1)
        call('HSETNX', P..'call:'..id, 'started_at', now)
        set(id, 'owner', owner, 'lease_until', ARGV[3])
        call('ZADD', P..'leases', ARGV[3], id)
        found[#found + 1] = call('HMGET', P..'call:'..id, CLAIM_FIELDS)
      end
    end
  end
end
return found
""".replace("CLAIM_FIELDS", ", ".join(f"'{each}'" for each in CLAIM_FIELDS))
)

# ARGV: lease until, then id and fence, ...; answers the ids that are lost.
RENEW = (
    _COMMON
    + """
local lost = {}
for n = 2, #ARGV, 2 do
  if held(ARGV[n], ARGV[n + 1]) then
    set(ARGV[n], 'lease_until', ARGV[1])
    call('ZADD', P..'leases', ARGV[1], ARGV[n])
  else
    lost[#lost + 1] = ARGV[n]
  end
end
return lost
"""
)

# ARGV: id, fence, status, http status, result, error, now, tries, and again; answers 1 for each that was held, else 0.
FINISH = (
    _COMMON
    + """
local answers, ended = {}, {}
for n = 1, #ARGV, 8 do
  local was = held(ARGV[n], ARGV[n + 1])
  if was then
    set(ARGV[n], 'http_status', ARGV[n + 3], 'result', ARGV[n + 4], 'error', ARGV[n + 5])
    if ARGV[n + 7] ~= '' then set(ARGV[n], 'tries', ARGV[n + 7]) end
    finish(ARGV[n], ARGV[n + 2], ARGV[n + 6], true)
    ended[#ended + 1] = ARGV[n]
  end
  answers[#answers + 1] = was and 1 or 0
end
if ended[1] then tell('ended '..table.concat(ended, ' ')) end
return answers
"""
)

# ARGV: id, fence, due, error, http status, refused (0 or 1), tries
AGAIN = (
    _COMMON
    + """
local id = ARGV[1]
if not held(id, ARGV[2]) then return 0 end
pull(id, true)
call('ZREM', P..'leases', id)
status(id, 'Queued')
set(id, 'due', ARGV[3], 'error', ARGV[4], 'http_status', ARGV[5], 'owner', '')
if ARGV[7] ~= '' then set(id, 'tries', ARGV[7]) end
if ARGV[6] == '1' then
  call('HINCRBY', P..'call:'..id, 'attempts', -1)
  call('HINCRBY', P..'call:'..id, 'refusals', 1)
end
call('ZADD', P..'later', ARGV[3], id)
tell('queued ')
return 1
"""
)

# ARGV: id, reason, now
CANCEL = (
    _COMMON
    + """
local state = field(ARGV[1], 'status')
if state ~= 'Queued' and state ~= 'Running' then return 0 end
set(ARGV[1], 'error', ARGV[2])
finish(ARGV[1], 'Canceled', ARGV[3])
return 1
"""
)

# ARGV: now, ids ...; answers those that were dead letters.
REDRIVE = (
    _COMMON
    + """
local found = {}
for n = 2, #ARGV do
  local id = ARGV[n]
  if field(id, 'status') == 'DeadLetter' then
    call('ZREM', P..'dead', id)
    call('ZREM', P..'finished', id)
    call('ZREM', P..'callbacks', id)
    status(id, 'Queued')
    set(id, 'due', ARGV[1], 'since', ARGV[1], 'spent', field(id, 'attempts'), 'refusals', 0, 'callback', '', 'callback_tries', 0)
    call('HDEL', P..'call:'..id, 'finished_at', 'result')
    if field(id, 'cron') ~= '' then call('ZADD', P..'open:'..trigger_of(id), field(id, 'seq'), id) end
    ready(id)
    found[#found + 1] = id
  end
end
if found[1] then tell('queued ') end
return found
"""
)

# ARGV: now, until, limit; answers (record, tries) ...
CALLBACKS = (
    _COMMON
    + """
local found = {}
for _, id in ipairs(call('ZRANGEBYSCORE', P..'callbacks', '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  call('ZADD', P..'callbacks', ARGV[2], id)
  local tries = call('HINCRBY', P..'call:'..id, 'callback_tries', 1)
  found[#found + 1] = {call('HMGET', P..'call:'..id, RECORD_FIELDS), tries}
end
return found
""".replace("RECORD_FIELDS", ", ".join(f"'{each}'" for each in RECORD_FIELDS))
)

# ARGV: id, request as it was, as it is now; answers whether it was still that.
RESEAL = (
    _COMMON
    + """
if field(ARGV[1], 'request') ~= ARGV[2] then return 0 end
set(ARGV[1], 'request', ARGV[3])
return 1
"""
)

# ARGV: before, limit
PRUNE = (
    _COMMON
    + """
local ids = call('ZRANGEBYSCORE', P..'finished', '-inf', '('..ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  local found = call('HMGET', P..'call:'..id, 'ns', 'fn', 'cron', 'scheduled_at', 'status')
  local fn = found[1]..'/'..found[2]
  for _, each in ipairs({'all', 'ns:'..found[1], 'fn:'..fn, 'dead', 'finished', 'callbacks'}) do call('ZREM', P..each, id) end
  if found[3] ~= '' then
    local trigger = fn..'/'..found[3]
    call('HDEL', P..'instants', trigger..'@'..found[4])
    if call('HGET', P..'latest', trigger) == id then call('HDEL', P..'latest', trigger) end
  end
  call('HINCRBY', P..'counts', found[5], -1)
  call('DEL', P..'call:'..id)
end
return #ids
"""
)
