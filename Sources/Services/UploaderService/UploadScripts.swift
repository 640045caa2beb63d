/// The Lua calls on an upload's keys. Each touches one hash tag; KEYS[1] is `upload:{FILE}`, a hash, and KEYS[2] is
/// `upload:{FILE}:offsets`, a sorted set with score = offset and member = `offset:length`. The first reply element is
/// always a word. ARGV[1] and ARGV[2] are the time now and the record's lifetime, both in ms; the rest is told below.
///
/// Scores are doubles: exact up to 2^53, and no file is longer than 2^40.
enum UploadScripts {
  /// Opens an upload or adds to what is declared. From ARGV[3]: size or -1, declared MD5, name, SHA-256, job;
  /// empty for "not told". What is told first stands.
  ///
  /// Replies `absent` (no record, and no size to make one) · `size`, standing · `md5`, standing · `ok`, then the hash as
  /// fields and values.
  static let declare = """
    local h = redis.call('HMGET', KEYS[1], 'state', 'size', 'declared_md5', 'md5')
    local fresh = not h[1]
    if fresh then
      if ARGV[3] == '-1' then return {'absent'} end
      redis.call('DEL', KEYS[2])
      redis.call('HSET', KEYS[1], 'state', 'uploading', 'size', ARGV[3], 'fence', '1', 'durable', '0')
    else
      if ARGV[3] ~= '-1' and ARGV[3] ~= h[2] then return {'size', h[2]} end
      if ARGV[4] ~= '' and h[4] and h[4] ~= ARGV[4] then return {'md5', h[4]} end
      if ARGV[4] ~= '' and h[3] and h[3] ~= ARGV[4] then return {'md5', h[3]} end
    end
    local fields = {'declared_md5', 'name', 'sha256', 'job'}
    for i = 1, 4 do
      if ARGV[3 + i] ~= '' then redis.call('HSETNX', KEYS[1], fields[i], ARGV[3 + i]) end
    end
    if fresh then
      redis.call('HSET', KEYS[1], 'updated', ARGV[1])
      redis.call('PEXPIRE', KEYS[1], ARGV[2])
    end
    local reply = redis.call('HGETALL', KEYS[1])
    table.insert(reply, 1, 'ok')
    return reply
    """

  /// Records chunks that are safe on disk. From ARGV[3]: fence, then offset and length of each chunk.
  /// A chunk that lies inside recorded ones is skipped; one that overlaps in part is not recorded and replied.
  ///
  /// Replies `fenced`, state, fence · `ok`, durable bytes, size, then the offsets that conflict.
  static let record = """
    local h = redis.call('HMGET', KEYS[1], 'state', 'fence', 'size', 'durable')
    if h[1] ~= 'uploading' or h[2] ~= ARGV[3] then return {'fenced', h[1] or '', h[2] or ''} end
    local durable = tonumber(h[4])
    local reply = {'ok', '', h[3]}
    for i = 4, #ARGV, 2 do
      local from, to = tonumber(ARGV[i]), tonumber(ARGV[i]) + tonumber(ARGV[i + 1])
      local below = redis.call('ZREVRANGEBYSCORE', KEYS[2], ARGV[i], '-inf', 'LIMIT', 0, 1)[1]
      local covered = from
      if below then
        local o, l = string.match(below, '^(%d+):(%d+)$')
        covered = math.max(from, o + l)
      end
      local above = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[i], '(' .. string.format('%.0f', to))
      if covered == from and #above == 0 then
        redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i] .. ':' .. ARGV[i + 1])
        durable = durable + to - from
      else
        for _, member in ipairs(above) do
          local o, l = string.match(member, '^(%d+):(%d+)$')
          if tonumber(o) == covered then covered = o + l end
        end
        if covered < to then reply[#reply + 1] = ARGV[i] end
      end
    end
    reply[2] = string.format('%.0f', durable)
    redis.call('HSET', KEYS[1], 'durable', reply[2], 'updated', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
    return reply
    """

  /// Makes one node the finaliser: of a complete upload, or of one whose finaliser's lease has ended or was this node
  /// itself (in an attempt that failed); then the fence goes up. From ARGV[3]: node, lease ms.
  ///
  /// Replies `absent` · `incomplete` · `busy` · `done` · `ok`, the fence before, the fence now.
  static let beginFinalising = """
    local h = redis.call('HMGET', KEYS[1], 'state', 'fence', 'size', 'durable', 'lease_end', 'finaliser')
    if not h[1] then return {'absent'} end
    if h[1] == 'verified' or h[1] == 'published' then return {'done'} end
    if h[3] ~= h[4] then return {'incomplete'} end
    local fence = h[2]
    if h[1] == 'finalising' then
      if h[6] ~= ARGV[3] and tonumber(h[5]) > tonumber(ARGV[1]) then return {'busy'} end
      fence = string.format('%.0f', tonumber(h[2]) + 1)
    end
    redis.call('HSET', KEYS[1], 'state', 'finalising', 'fence', fence, 'finaliser', ARGV[3],
      'lease_end', string.format('%.0f', tonumber(ARGV[1]) + tonumber(ARGV[4])), 'updated', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
    return {'ok', h[2], fence}
    """

  /// Renews the finaliser's lease. From ARGV[3]: fence, lease ms. Replies `ok` or `fenced`.
  static let renewFinaliser = """
    local h = redis.call('HMGET', KEYS[1], 'state', 'fence')
    if h[1] ~= 'finalising' or h[2] ~= ARGV[3] then return {'fenced'} end
    redis.call('HSET', KEYS[1], 'lease_end', string.format('%.0f', tonumber(ARGV[1]) + tonumber(ARGV[4])))
    return {'ok'}
    """

  /// The file stands under its final name; its notice is pending, and stays until it has gone out. From ARGV[3]:
  /// fence, MD5, notice. Replies `ok` or `fenced`.
  static let verified = """
    local h = redis.call('HMGET', KEYS[1], 'state', 'fence')
    if h[1] ~= 'finalising' or h[2] ~= ARGV[3] then return {'fenced'} end
    redis.call('HSET', KEYS[1], 'state', 'verified', 'md5', ARGV[4], 'notice', ARGV[5], 'updated', ARGV[1])
    redis.call('PERSIST', KEYS[1])
    return {'ok'}
    """

  /// The notice has gone out. Replies `ok` or `other`, state.
  static let published = """
    local state = redis.call('HGET', KEYS[1], 'state')
    if state ~= 'verified' then return {'other', state or ''} end
    redis.call('HSET', KEYS[1], 'state', 'published', 'updated', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
    return {'ok'}
    """

  /// Forgets what was received, because the part file is lost or isn't what was declared: all is asked for again under a
  /// new fence, and what was declared of the digest is forgotten. ARGV[3]: fence.
  ///
  /// Replies `fenced` · `ok`, the new fence.
  static let startAgain = """
    local h = redis.call('HMGET', KEYS[1], 'state', 'fence')
    if (h[1] ~= 'uploading' and h[1] ~= 'finalising') or h[2] ~= ARGV[3] then return {'fenced'} end
    local fence = string.format('%.0f', tonumber(h[2]) + 1)
    redis.call('DEL', KEYS[2])
    redis.call('HDEL', KEYS[1], 'declared_md5', 'lease_end', 'finaliser')
    redis.call('HSET', KEYS[1], 'state', 'uploading', 'fence', fence, 'durable', '0', 'updated', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return {'ok', fence}
    """
}
