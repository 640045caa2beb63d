internal import Redis

/// The Lua of the fleet's log, which has the shape of an inbox, and of the clients' cursors in it.
///
/// - `log:{fleet}` is a hash: id (random, new with each life of the log), seq (of the newest entry), count and bytes of what
///   is kept, trimmed (the newest seq that was removed for want of room), withdrawn (how many entries were taken out)
/// - `log:{fleet}:entries` is a hash: the record by its seq
/// - `log:{fleet}:ids` is a sorted set: message ids by seq, of what is kept and of the newest that were removed
/// - `log:{fleet}:expiry` is a sorted set: seqs by the time when they expire
/// - `cursor:{ID}` is a hash: log (the log's id), acked (all up to there is done with), written (how far any session has
///   written), judged (up to there the rows of jobs say who is a member: the client's tags have changed)
///
/// Seqs are as those of inboxes: microseconds of Redis's clock, so they grow from one life of the log to the next, too.
enum FleetLogScripts {
  /// Entries that one call trims at most.
  static let batch = 1000
  /// Ids of removed entries that are kept, to know a publisher's retry by.
  static let rememberedIDs = 4096

  /// Appends an entry, unless its id is there, and trims the oldest ones past the limits. A log that is missing is made.
  ///
  /// - KEYS: `log:{fleet}`, `log:{fleet}:entries`, `log:{fleet}:ids`, `log:{fleet}:expiry`
  /// - ARGV: message id, record, when it expires in ms since the epoch or 0, an id for a new log, entries and bytes that
  ///   the log keeps at most, lifetime of the keys in ms
  /// - Answers: {what, seq, the seq before, log id, then the message ids that were trimmed}, where what is 0
  ///   appended, 1 it is there already, 2 it was there and is removed; {5} it has expired
  static let append = RedisScript(
    InboxScripts.preamble + """
      local expires = tonumber(ARGV[3])
      if expires > 0 and expires <= now then return {5} end
      expire()
      local log = redis.call('HMGET', KEYS[1], 'id', 'seq', 'trimmed')
      local id, before, trimmed = log[1], tonumber(log[2] or '0'), tonumber(log[3] or '0')
      local known = redis.call('ZSCORE', KEYS[3], ARGV[1])
      if id and known then
        local earlier = redis.call('ZREVRANGEBYSCORE', KEYS[3], '(' .. known, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
        return {2 - redis.call('HEXISTS', KEYS[2], text(tonumber(known))), tonumber(known), tonumber(earlier[2] or '0'), id}
      end
      if not id then
        redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
        id, before, trimmed = ARGV[4], 0, 0
        redis.call('HSET', KEYS[1], 'id', id, 'count', '0', 'bytes', '0', 'trimmed', '0', 'withdrawn', '0')
      end
      local seq = math.max(before + 1, moment)
      redis.call('HSET', KEYS[1], 'seq', text(seq))
      local count = redis.call('HINCRBY', KEYS[1], 'count', 1)
      local bytes = redis.call('HINCRBY', KEYS[1], 'bytes', #ARGV[2])
      redis.call('HSET', KEYS[2], text(seq), ARGV[2])
      redis.call('ZADD', KEYS[3], text(seq), ARGV[1])
      if expires > 0 then redis.call('ZADD', KEYS[4], ARGV[3], text(seq)) end
      local answer = {0, seq, before, id}
      if count > tonumber(ARGV[5]) or bytes > tonumber(ARGV[6]) then
        local oldest = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. text(trimmed), '(' .. text(seq), 'WITHSCORES',
          'LIMIT', 0, \(batch))
        for i = 1, #oldest, 2 do
          if count <= tonumber(ARGV[5]) and bytes <= tonumber(ARGV[6]) then break end
          trimmed = tonumber(oldest[i + 1])
          local size = redis.call('HSTRLEN', KEYS[2], text(trimmed))
          if size > 0 then
            drop({text(trimmed)})
            count, bytes = count - 1, bytes - size
            answer[#answer + 1] = oldest[i]
          end
        end
        redis.call('HSET', KEYS[1], 'trimmed', text(trimmed))
        local remembered = redis.call('ZCOUNT', KEYS[3], '-inf', text(trimmed))
        if remembered > \(rememberedIDs) then
          redis.call('ZREMRANGEBYRANK', KEYS[3], 0, remembered - \(rememberedIDs + 1))
        end
      end
      local life = math.max(tonumber(ARGV[7]), expires - now, redis.call('PTTL', KEYS[1]))
      for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], text(life)) end
      return answer
      """)

  /// Reads entries after a position, in order.
  ///
  /// - KEYS: as those of `append`
  /// - ARGV: the seq to read after, entries and bytes of the page at most (one entry comes in any case)
  /// - Answers: {log id or "" when there is none, the newest seq, trimmed, withdrawn, 1 when nothing follows else 0, then seq
  ///   and record in turn}
  static let read = RedisScript(
    InboxScripts.preamble + """
      expire()
      local log = redis.call('HMGET', KEYS[1], 'id', 'seq', 'trimmed', 'withdrawn')
      if not log[1] then return {'', 0, 0, 0, 1} end
      local answer = {log[1], tonumber(log[2] or '0'), tonumber(log[3] or '0'), tonumber(log[4] or '0'), 1}
      local bytes, from = 0, '(' .. ARGV[1]
      while true do
        local slice = redis.call('ZRANGEBYSCORE', KEYS[3], from, '+inf', 'WITHSCORES', 'LIMIT', 0, 100)
        for i = 2, #slice, 2 do
          local seq = text(tonumber(slice[i]))
          local entry = redis.call('HGET', KEYS[2], seq)
          if entry then
            local size = (#answer - 5) / 2
            if size >= tonumber(ARGV[2]) or (size > 0 and bytes + #entry > tonumber(ARGV[3])) then
              answer[5] = 0
              return answer
            end
            bytes = bytes + #entry
            answer[#answer + 1] = tonumber(seq)
            answer[#answer + 1] = entry
          end
          from = '(' .. seq
        end
        if #slice < 200 then return answer end
      end
      """)

  /// Finds where the newest part of the log begins that is within limits.
  ///
  /// - KEYS: as those of `append`
  /// - ARGV: entries and bytes at most
  /// - Answers: {log id or "" when there is none, the newest seq, trimmed, withdrawn, the seq after which that part begins}
  static let findTail = RedisScript(
    InboxScripts.preamble + """
      expire()
      local log = redis.call('HMGET', KEYS[1], 'id', 'seq', 'trimmed', 'withdrawn')
      if not log[1] then return {'', 0, 0, 0, 0} end
      local trimmed = tonumber(log[3] or '0')
      local start, count, bytes, to = trimmed, 0, 0, '+inf'
      while true do
        local slice = redis.call('ZREVRANGEBYSCORE', KEYS[3], to, '(' .. text(trimmed), 'WITHSCORES', 'LIMIT', 0, 100)
        for i = 2, #slice, 2 do
          local seq = tonumber(slice[i])
          local size = redis.call('HSTRLEN', KEYS[2], text(seq))
          if size > 0 then
            count, bytes = count + 1, bytes + size
            if count > tonumber(ARGV[1]) or bytes > tonumber(ARGV[2]) then
              start = seq
              return {log[1], tonumber(log[2] or '0'), trimmed, tonumber(log[4] or '0'), start}
            end
          end
          to = '(' .. text(seq)
        end
        if #slice < 200 then return {log[1], tonumber(log[2] or '0'), trimmed, tonumber(log[4] or '0'), start} end
      end
      """)

  /// Takes an entry out; its id stays known.
  ///
  /// - KEYS: as those of `append`
  /// - ARGV: message id
  /// - Answers: 1 taken out, 0 it is not there
  static let withdraw = RedisScript(
    InboxScripts.preamble + """
      local seq = redis.call('ZSCORE', KEYS[3], ARGV[1])
      if not seq or not drop({text(tonumber(seq))})[1] then return 0 end
      redis.call('HINCRBY', KEYS[1], 'withdrawn', 1)
      return 1
      """)

  /// Moves a client's cursor on, never back.
  ///
  /// - KEYS: `cursor:{ID}`
  /// - ARGV: log id, the seq up to which all is done with or 0, the seq up to which all is written or 0, lifetime in ms
  /// - Answers: {0}
  static let settle = RedisScript(
    """
    local cursor = redis.call('HMGET', KEYS[1], 'acked', 'written')
    if tonumber(ARGV[2]) > tonumber(cursor[1] or '0') then redis.call('HSET', KEYS[1], 'log', ARGV[1], 'acked', ARGV[2]) end
    if tonumber(ARGV[3]) > tonumber(cursor[2] or '0') then redis.call('HSET', KEYS[1], 'written', ARGV[3]) end
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
    return {0}
    """)
}
