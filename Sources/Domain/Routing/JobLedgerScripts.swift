internal import Redis

/// The ledger's Lua. The keys of a job share its id as their hash tag.
///
/// `job:{ID}` is a hash: spec, notice, kind, submitted_at, updated_at, ordinal (grows with each change of a row),
/// `s1` … `s8` (how many rows are in each state), cancelled, reason, admits (a client without a row may get one).
/// `job:{ID}:row:CLIENT` is a hash with the row's fields, `job:{ID}:rows` a sorted set: clients by the ordinal of their
/// row's newest change.
enum JobLedgerScripts {
  /// What scripts begin with that add rows: `KEYS[1]` and `KEYS[2]` are `job:{ID}` and `job:{ID}:rows`, the key of each row
  /// follows; the client of `KEYS[i]` is `ARGV[i + offset]`. Rows live as long as their job.
  private static let adding = """
    local function add(now, offset)
      local life = redis.call('PTTL', KEYS[1])
      if life <= 0 then return 0 end
      local ordinal = tonumber(redis.call('HGET', KEYS[1], 'ordinal') or '0')
      local places = {}
      for i = 3, #KEYS do
        if redis.call('HSETNX', KEYS[i], 'state', '1') == 1 then
          redis.call('HSET', KEYS[i], 'updated_at', now)
          redis.call('PEXPIRE', KEYS[i], life)
          ordinal = ordinal + 1
          places[#places + 1] = ordinal
          places[#places + 1] = ARGV[i + offset]
        end
      end
      local added = #places / 2
      if added > 0 then
        redis.call('ZADD', KEYS[2], unpack(places))
        redis.call('HSET', KEYS[1], 'ordinal', ordinal)
        redis.call('HINCRBY', KEYS[1], 's1', added)
        redis.call('PEXPIRE', KEYS[2], life)
      end
      return added
    end

    """

  /// Opens a job, once, and adds rows in the state ACCEPTED; those that are there stay as they are. A job that is cancelled,
  /// or stands with another content, gets none.
  ///
  /// - KEYS: `job:{ID}`, `job:{ID}:rows`, then the key of each row
  /// - ARGV: the job and the file's notice, encoded; its kind; now in ms since the epoch; lifetime in ms, then the client of
  ///   each row
  /// - Answers: {0 the job is new, 1 it stands with the same content, 2 it stands with another one; how many rows are new}
  static let open = RedisScript(
    adding + """
      local spec, what = redis.call('HGET', KEYS[1], 'spec'), 1
      if not spec then
        what = 0
        redis.call('HSET', KEYS[1], 'spec', ARGV[1], 'notice', ARGV[2], 'kind', ARGV[3], 'submitted_at', ARGV[4],
          'updated_at', ARGV[4], 'ordinal', '0')
        redis.call('PEXPIRE', KEYS[1], ARGV[5])
      elseif spec ~= ARGV[1] then
        return {2, 0}
      elseif redis.call('HEXISTS', KEYS[1], 'cancelled') == 1 then
        return {1, 0}
      end
      return {what, add(ARGV[4], 3)}
      """)

  /// Adds rows in the state ACCEPTED; those that are there stay as they are.
  ///
  /// - KEYS: `job:{ID}`, `job:{ID}:rows`, then the key of each row
  /// - ARGV: now in ms since the epoch, then the client of each row
  /// - Answers: how many rows are new
  static let addRows = RedisScript(
    adding + """
      return add(ARGV[1], -1)
      """)

  /// Takes rows of one job to the same state, with the same fields. A row whose present state does not allow the step
  /// stays as it is. A client that has no row gets one when the job admits it.
  ///
  /// - KEYS: `job:{ID}`, `job:{ID}:rows`, then the key of each row
  /// - ARGV: the new state, the states that allow it in a job of messages, in a job of a file (digits), now in ms since
  ///   the epoch, the number F of fields, F names and values in turn, then the client of each row
  /// - Answers: how many rows took the step
  static let step = RedisScript(
    """
    local job = redis.call('HMGET', KEYS[1], 'kind', 'ordinal', 'admits')
    if not job[1] then return 0 end
    local allowed = ARGV[2]
    if job[1] == 'file' then allowed = ARGV[3] end
    local fields = {}
    local last = 5 + 2 * tonumber(ARGV[5])
    for i = 6, last do fields[#fields + 1] = ARGV[i] end
    local ordinal = tonumber(job[2])
    local before, places = {}, {}
    for i = 3, #KEYS do
      local state = redis.call('HGET', KEYS[i], 'state')
      local admitted = not state and job[3]
      if admitted or (state and string.find(allowed, state, 1, true)) then
        redis.call('HSET', KEYS[i], 'state', ARGV[1], 'updated_at', ARGV[4], unpack(fields))
        if admitted then redis.call('PEXPIRE', KEYS[i], redis.call('PTTL', KEYS[1])) end
        state = state or ''
        before[state] = (before[state] or 0) + 1
        ordinal = ordinal + 1
        places[#places + 1] = ordinal
        places[#places + 1] = ARGV[last + i - 2]
      end
    end
    if #places == 0 then return 0 end
    redis.call('ZADD', KEYS[2], unpack(places))
    redis.call('HSET', KEYS[1], 'ordinal', ordinal, 'updated_at', ARGV[4])
    for state, count in pairs(before) do
      if state ~= ARGV[1] then
        if state ~= '' then redis.call('HINCRBY', KEYS[1], 's' .. state, -count) end
        redis.call('HINCRBY', KEYS[1], 's' .. ARGV[1], count)
      end
    end
    return #places / 2
    """)

  /// Takes jobs whose rows are due to end, for a while: nobody else is given them before that has passed.
  ///
  /// - KEYS: `index:{deadlines}`
  /// - ARGV: now in ms since the epoch, when the claim ends in ms since the epoch, how many at most
  /// - Answers: their ids
  static let claimDue = RedisScript(
    """
    local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
    for _, job in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[2], job) end
    return due
    """)

  /// Marks a job as cancelled, once.
  ///
  /// - KEYS: `job:{ID}`
  /// - ARGV: the reason, now in ms since the epoch
  /// - Answers: 1 done, 0 it was cancelled before, -1 there is no such job
  static let cancel = RedisScript(
    """
    if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
    if redis.call('HSETNX', KEYS[1], 'cancelled', '1') == 0 then return 0 end
    redis.call('HSET', KEYS[1], 'reason', ARGV[1], 'updated_at', ARGV[2])
    return 1
    """)

  /// Adds to the count of a state in a job that keeps no rows.
  ///
  /// - KEYS: `job:{ID}`
  /// - ARGV: the state, how many, now in ms since the epoch
  /// - Answers: 1 done, 0 there is no such job
  static let count = RedisScript(
    """
    if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
    redis.call('HINCRBY', KEYS[1], 's' .. ARGV[1], ARGV[2])
    redis.call('HSET', KEYS[1], 'updated_at', ARGV[3])
    return 1
    """)
}
