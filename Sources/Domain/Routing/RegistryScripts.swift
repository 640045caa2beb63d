internal import Redis

/// The registry's Lua. Each script touches keys of one hash tag and takes the time from Redis, the only clock that all
/// nodes share.
///
/// Epochs are microseconds of that clock, pushed up where it hasn't moved on: they grow with each owner, also when Redis
/// lost the record in between. Lua's numbers hold them exactly.
enum RegistryScripts {
  private static let clock = """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local moment = time[1] * 1000000 + time[2]

    """

  /// Publishes the record as it is now, in the same call that has changed it: the id, then the names and values of the
  /// hash, each as a netstring without its comma.
  private static let tell = """
    local function tell()
      local parts = redis.call('HGETALL', KEYS[1])
      for i, part in ipairs(parts) do parts[i] = #part .. ':' .. part end
      local id = string.sub(KEYS[1], #'client:{' + 1, -2)
      redis.call('PUBLISH', '\(Registry.presenceChannel)', #id .. ':' .. id .. table.concat(parts))
    end

    """

  /// Makes a session the owner of a client's record, unless a later stream of the client has been here, tells who watches,
  /// and gives a client that has no cursor one at the head of the fleet's log. When the client's tags have changed, entries
  /// up to that head are no longer judged by its tags.
  ///
  /// - KEYS: `client:{ID}`, `cursor:{ID}`
  /// - ARGV: node, node epoch, session id, the session id that the client had last or "", its address, the record's
  ///   lifetime in ms, the number of its stream or 0, the log's id and its newest seq as the node knows them, 1 when this
  ///   restores a record that was lost else 0, then names and values of tags in turn
  /// - Answers: {session epoch, node before or "", epoch before or 0, 1 when the last session id is the record's else 0,
  ///   1 when the client stands in the list else 0, the cursor: log, acked, written, judged}, or {the number of the later
  ///   stream, at least 1}
  static let register = RedisScript(
    clock + tell + """
      local old = {}
      local tags = 0
      local fields = redis.call('HGETALL', KEYS[1])
      for i = 1, #fields, 2 do
        old[fields[i]] = fields[i + 1]
        if string.sub(fields[i], 1, 4) == 'tag:' then tags = tags + 1 end
      end
      local stream, newest = tonumber(ARGV[7]), tonumber(old['stream'] or '0')
      if stream > 0 and stream < newest then return {newest} end
      if ARGV[10] == '1' and old['epoch'] and old['session'] ~= ARGV[3] then return {math.max(newest, 1)} end
      local same = old['epoch'] and tags * 2 == #ARGV - 10
      local before = tonumber(old['epoch'] or '0')
      local epoch = math.max(before + 1, moment)
      redis.call('DEL', KEYS[1])
      redis.call('HSET', KEYS[1], 'node', ARGV[1], 'node_epoch', ARGV[2], 'session', ARGV[3],
        'epoch', string.format('%.0f', epoch), 'peer', ARGV[5], 'connected_at', string.format('%.0f', now),
        'last_active', string.format('%.0f', now), 'stream', ARGV[7])
      for i = 11, #ARGV, 2 do
        redis.call('HSET', KEYS[1], 'tag:' .. ARGV[i], ARGV[i + 1])
        if old['tag:' .. ARGV[i]] ~= ARGV[i + 1] then same = false end
      end
      local listed = 0
      if old['listed'] then
        listed = 1
        redis.call('HSET', KEYS[1], 'listed', '1')
      end
      redis.call('PEXPIRE', KEYS[1], ARGV[6])
      tell()
      local resumed = 0
      if old['session'] and old['session'] == ARGV[4] then resumed = 1 end
      local cursor = redis.call('HMGET', KEYS[2], 'log', 'acked', 'written', 'judged')
      if not cursor[1] then
        cursor = {ARGV[8], ARGV[9], ARGV[9], ARGV[9]}
        redis.call('HSET', KEYS[2], 'log', ARGV[8], 'acked', ARGV[9], 'written', ARGV[9], 'judged', ARGV[9])
      elseif not same then
        cursor[4] = ARGV[9]
        redis.call('HSET', KEYS[2], 'judged', ARGV[9])
      end
      redis.call('PEXPIRE', KEYS[2], ARGV[6])
      return {epoch, old['node'] or '', before, resumed, listed, cursor[1], tonumber(cursor[2] or '0'),
        tonumber(cursor[3] or '0'), tonumber(cursor[4] or '0')}
      """)

  /// Notes that the client stands in the list, as long as it has a record.
  ///
  /// - KEYS: `client:{ID}`
  /// - Answers: 1 done, 0 there is no record
  static let listed = RedisScript(
    """
    if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
    redis.call('HSET', KEYS[1], 'listed', '1')
    return 1
    """)

  /// Keeps a record alive, notes when its client was last heard, and looks how far the client's inbox is. Who watches is
  /// told when the node vouches for the session in a new epoch.
  ///
  /// - KEYS: `client:{ID}`, `inbox:{ID}`, `cursor:{ID}`
  /// - ARGV: session epoch, node epoch, last active in ms since the epoch, lifetime in ms
  /// - Answers: {1, inbox id or "", its newest seq} done, {0} another session owns the record, {-1} there is no record
  static let refresh = RedisScript(
    tell + """
      local old = redis.call('HMGET', KEYS[1], 'epoch', 'node_epoch')
      if not old[1] then return {-1} end
      if old[1] ~= ARGV[1] then return {0} end
      redis.call('HSET', KEYS[1], 'node_epoch', ARGV[2], 'last_active', ARGV[3])
      redis.call('PEXPIRE', KEYS[1], ARGV[4])
      redis.call('PEXPIRE', KEYS[3], ARGV[4])
      if old[2] ~= ARGV[2] then tell() end
      local inbox = redis.call('HMGET', KEYS[2], 'id', 'seq')
      return {1, inbox[1] or '', inbox[2] or '0'}
      """)

  /// Takes the node out of a record: the client is away. The record stays for the rest of its lifetime, so that the
  /// client is known, and a later session gets a higher epoch.
  ///
  /// - KEYS: `client:{ID}`
  /// - ARGV: session epoch, last active in ms since the epoch, lifetime in ms
  /// - Answers: 1 done, 0 another session owns the record, -1 there is no record
  static let release = RedisScript(
    tell + """
      local epoch = redis.call('HGET', KEYS[1], 'epoch')
      if not epoch then return -1 end
      if epoch ~= ARGV[1] then return 0 end
      redis.call('HSET', KEYS[1], 'node', '', 'last_active', ARGV[2])
      redis.call('PEXPIRE', KEYS[1], ARGV[3])
      tell()
      return 1
      """)

  /// Takes a node's name, from an earlier process too: the newer one counts.
  ///
  /// - KEYS: `node:{ID}`
  /// - ARGV: address, partition, lease in ms, started at in ms since the epoch, 1 when it is draining else 0
  /// - Answers: the node's epoch
  static let acquireNode = RedisScript(
    clock + """
      local before = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
      local epoch = math.max(before + 1, moment)
      redis.call('DEL', KEYS[1])
      redis.call('HSET', KEYS[1], 'address', ARGV[1], 'partition', ARGV[2], 'epoch', string.format('%.0f', epoch),
        'started_at', ARGV[4], 'clients', '0', 'draining', ARGV[5])
      redis.call('PEXPIRE', KEYS[1], ARGV[3])
      return epoch
      """)

  /// Extends a node's lease.
  ///
  /// - KEYS: `node:{ID}`
  /// - ARGV: node epoch, lease in ms, number of clients, 1 when it is draining else 0
  /// - Answers: 1 done, 0 another process has taken the name, -1 the lease had lapsed
  static let renewNode = RedisScript(
    """
    local epoch = redis.call('HGET', KEYS[1], 'epoch')
    if not epoch then return -1 end
    if epoch ~= ARGV[1] then return 0 end
    redis.call('HSET', KEYS[1], 'clients', ARGV[3], 'draining', ARGV[4])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return 1
    """)

  /// Ends a node's lease at once.
  ///
  /// - KEYS: `node:{ID}`
  /// - ARGV: node epoch
  /// - Answers: 1 done, 0 another process has the name, -1 there is no record
  static let releaseNode = RedisScript(
    """
    local epoch = redis.call('HGET', KEYS[1], 'epoch')
    if not epoch then return -1 end
    if epoch ~= ARGV[1] then return 0 end
    redis.call('DEL', KEYS[1])
    return 1
    """)

  /// Leases a partition, or extends the lease: the one asked for, else the one that the node has, else the first that no
  /// living node has, else the one that fewest share.
  ///
  /// - KEYS: `partitions:{TOPIC}`
  /// - ARGV: node, number of partitions, lease in ms, the partition that the node reads already or ""
  /// - Answers: the partition
  static let leasePartition = RedisScript(
    clock + """
      redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
      local count = tonumber(ARGV[2])
      local chosen = tonumber(ARGV[4])
      local holders = {}
      for p = 0, count - 1 do holders[p] = 0 end
      for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
        local p, node = string.match(member, '^(%d+):(.*)$')
        p = tonumber(p)
        if holders[p] then
          holders[p] = holders[p] + 1
          if node == ARGV[1] and not chosen then chosen = p end
        end
      end
      if not chosen then
        chosen = 0
        for p = 1, count - 1 do if holders[p] < holders[chosen] then chosen = p end end
      end
      redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[3])), chosen .. ':' .. ARGV[1])
      return chosen
      """)

  /// Gives a partition back.
  ///
  /// - KEYS: `partitions:{TOPIC}`
  /// - ARGV: node, partition
  /// - Answers: how many leases ended, 0 or 1
  static let releasePartition = RedisScript("return redis.call('ZREM', KEYS[1], ARGV[2] .. ':' .. ARGV[1])")
}
