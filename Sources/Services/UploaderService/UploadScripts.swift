/// The Lua calls on an upload's keys. Each touches one hash tag. KEYS[1] is `upload:{FILE}`, a hash; KEYS[2] its `:offsets`, a
/// sorted set with score = offset and member = `offset:length`; KEYS[3] its `:blocks`, a hash of MD5s by block; KEYS[4] its
/// `:lock`, a hash of the session's `token` and `until` when it holds the file. ARGV[1] and ARGV[2] are the time now and the
/// record's lifetime, both in ms; the rest is told below. The first reply element is always a word.
///
/// Scores are doubles: exact up to 2^53, and no file is longer than 2^40.
enum UploadScripts {
  /// Opens an upload or adds to what is declared, takes the session's lock, and says who writes the file: the node that has
  /// the lease. What is told first stands.
  ///
  /// From ARGV[3]: size or -1, declared MD5, name, SHA-256, job (empty for "not told"), session's token (empty: no session, the
  /// lock isn't looked at), the lock's lifetime; the node that asks: its instance, address, lease in ms, the highest fence
  /// that it found on disk or -1 when it hasn't looked, the fence that it has the file open at or -1.
  ///
  /// Replies `look`, 1 or 0 (the disk has to be looked at first; there is a record or not) · `absent` (no record, no size to
  /// make one) · `size`, standing · `md5`, standing · `locked`, until · `elsewhere`, address, lease end · `done` (finished),
  /// `here` (open there) or `taken` (now at a new fence), each with the hash as fields and values.
  static let claim = """
    local h = redis.call('HMGET', KEYS[1], 'state', 'size', 'declared_md5', 'md5', 'fence', 'writer', 'address',
      'lease_end', 'updated')
    local now = tonumber(ARGV[1])
    local done = h[1] == 'verified' or h[1] == 'published'
    if h[1] and not done and tonumber(h[9] or '0') + tonumber(ARGV[2]) <= now then
      redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
      h = {false, false, false, false, false, false, false, false, false}
    end
    local fresh = not h[1]
    if not fresh then
      if ARGV[3] ~= '-1' and ARGV[3] ~= h[2] then return {'size', h[2]} end
      if ARGV[4] ~= '' and h[4] and h[4] ~= ARGV[4] then return {'md5', h[4]} end
      if ARGV[4] ~= '' and h[3] and h[3] ~= ARGV[4] then return {'md5', h[3]} end
    end
    local word = 'done'
    if not done then
      local lock = redis.call('HMGET', KEYS[4], 'token', 'until')
      if ARGV[8] ~= '' and lock[2] and lock[1] ~= ARGV[8] and tonumber(lock[2]) > now then return {'locked', lock[2]} end
      local isOpen = h[6] == ARGV[10] and h[5] == ARGV[14]
      if not isOpen and h[6] and h[6] ~= '' and h[6] ~= ARGV[10] and h[7] ~= ARGV[11] and tonumber(h[8]) > now then
        return {'elsewhere', h[7], h[8]}
      end
      word = 'here'
      if not isOpen then
        if ARGV[13] == '-1' then return {'look', fresh and 0 or 1} end
        if fresh and ARGV[3] == '-1' then return {'absent'} end
        word = 'taken'
        if fresh then
          redis.call('DEL', KEYS[2], KEYS[3])
          redis.call('HSET', KEYS[1], 'size', ARGV[3], 'durable', '0', 'updated', ARGV[1])
        end
        local fence = math.max(tonumber(h[5] or '0'), tonumber(ARGV[13])) + 1
        redis.call('HSET', KEYS[1], 'state', 'uploading', 'fence', string.format('%.0f', fence), 'writer', ARGV[10],
          'address', ARGV[11])
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
      end
      redis.call('HSET', KEYS[1], 'lease_end', string.format('%.0f', now + tonumber(ARGV[12])))
      if ARGV[8] ~= '' then
        redis.call('HSET', KEYS[4], 'token', ARGV[8], 'until', string.format('%.0f', now + tonumber(ARGV[9])))
        redis.call('PEXPIRE', KEYS[4], ARGV[9])
      end
      local fields = {'declared_md5', 'name', 'sha256', 'job'}
      for i = 1, 4 do
        if ARGV[3 + i] ~= '' then redis.call('HSETNX', KEYS[1], fields[i], ARGV[3 + i]) end
      end
    end
    local reply = redis.call('HGETALL', KEYS[1])
    table.insert(reply, 1, word)
    return reply
    """

  /// What every later step begins with: only the writer at its fence goes on. ARGV[3] is the fence, ARGV[4] the writer.
  private static let fenced = """
    local h = redis.call('HMGET', KEYS[1], 'state', 'fence', 'writer', 'size', 'durable')
    if not h[1] then return {'absent'} end
    if h[1] == 'verified' or h[1] == 'published' or h[2] ~= ARGV[3] or h[3] ~= ARGV[4] then
      return {'fenced', h[1], h[2]}
    end

    """

  /// Records chunks and blocks that are safe on disk and in the journal, which is progress: lease, lock and all keys live on.
  /// From ARGV[5]: session's token, the lock's lifetime, lease in ms, durable bytes then, 1 to forget the chunks and
  /// blocks recorded before, the number of chunks; offset and length of each; index and MD5 of each block.
  ///
  /// Replies `absent` · `fenced`, state, fence · `ok`.
  static let record =
    fenced + """
      if ARGV[9] == '1' then redis.call('DEL', KEYS[2], KEYS[3]) end
      local blocks = 11 + 2 * tonumber(ARGV[10])
      for i = 11, blocks - 1, 2 do redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i] .. ':' .. ARGV[i + 1]) end
      for i = blocks, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
      redis.call('HSET', KEYS[1], 'durable', ARGV[8], 'updated', ARGV[1], 'lease_end',
        string.format('%.0f', tonumber(ARGV[1]) + tonumber(ARGV[7])))
      if ARGV[9] == '1' then redis.call('HSET', KEYS[1], 'state', 'uploading') end
      for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
      local token = redis.call('HGET', KEYS[4], 'token')
      if ARGV[5] ~= '' and (not token or token == ARGV[5]) then
        redis.call('HSET', KEYS[4], 'token', ARGV[5], 'until',
          string.format('%.0f', tonumber(ARGV[1]) + tonumber(ARGV[6])))
        redis.call('PEXPIRE', KEYS[4], ARGV[6])
      end
      return {'ok'}
      """

  /// Renews the writer's lease. ARGV[5]: lease in ms. Replies `absent` · `fenced` · `ok`.
  static let renew =
    fenced + """
      redis.call('HSET', KEYS[1], 'lease_end', string.format('%.0f', tonumber(ARGV[1]) + tonumber(ARGV[5])))
      return {'ok'}
      """

  /// Gives the lease up: any node may be the next writer at once. Replies `absent` · `fenced` · `ok`.
  static let release =
    fenced + """
      redis.call('HSET', KEYS[1], 'writer', '', 'lease_end', '0')
      return {'ok'}
      """

  /// Every byte is durable: the writer begins to finalise. Replies `absent` · `fenced` · `incomplete` · `ok`, then the hash.
  static let beginFinalising =
    fenced + """
      if h[4] ~= h[5] then return {'incomplete'} end
      redis.call('HSET', KEYS[1], 'state', 'finalising')
      local reply = redis.call('HGETALL', KEYS[1])
      table.insert(reply, 1, 'ok')
      return reply
      """

  /// The file stands under its final name; its notice is pending, and stays until it has gone out. From ARGV[5]: MD5,
  /// notice, 1 for a file that came whole in one message and was never finalising. Replies `absent` · `fenced` · `ok`.
  static let verified =
    fenced + """
      if h[1] ~= 'finalising' and ARGV[7] ~= '1' then return {'fenced', h[1], h[2]} end
      redis.call('HSET', KEYS[1], 'state', 'verified', 'md5', ARGV[5], 'notice', ARGV[6], 'durable', h[4], 'updated',
        ARGV[1], 'writer', '')
      if ARGV[7] == '1' and h[4] ~= '0' then redis.call('ZADD', KEYS[2], 0, '0:' .. h[4]) end
      redis.call('PERSIST', KEYS[1])
      redis.call('DEL', KEYS[4])
      return {'ok'}
      """

  /// Forgets what was received and what was declared of the digest, because the bytes are lost or aren't what was declared:
  /// all is asked for again, at a new fence. Replies `absent` · `fenced` · `ok`.
  static let startAgain =
    fenced + """
      redis.call('DEL', KEYS[2], KEYS[3])
      redis.call('HDEL', KEYS[1], 'declared_md5')
      redis.call('HSET', KEYS[1], 'state', 'uploading', 'durable', '0', 'updated', ARGV[1], 'writer', '', 'lease_end', '0')
      redis.call('PEXPIRE', KEYS[1], ARGV[2])
      return {'ok'}
      """

  /// The notice has gone out. Replies `ok` or `other`, state.
  static let published = """
    local state = redis.call('HGET', KEYS[1], 'state')
    if state ~= 'verified' then return {'other', state or ''} end
    redis.call('HSET', KEYS[1], 'state', 'published', 'updated', ARGV[1])
    for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
    return {'ok'}
    """

  /// Brings back the record of a finished file whose notice may not have gone out when Redis lost it. From ARGV[3]: size,
  /// fence, MD5, notice. Replies `there` · `ok`.
  static let restoreVerified = """
    if redis.call('EXISTS', KEYS[1]) == 1 then return {'there'} end
    redis.call('HSET', KEYS[1], 'state', 'verified', 'size', ARGV[3], 'fence', ARGV[4], 'durable', ARGV[3], 'md5', ARGV[5],
      'notice', ARGV[6], 'updated', ARGV[1], 'writer', '', 'lease_end', '0')
    return {'ok'}
    """

  /// Keeps everybody else from beginning an upload that has expired while its files are removed. ARGV[3]: the lock's
  /// lifetime. Replies `there` (it lives) · `locked` · `ok`.
  static let lockForSweeping = """
    local h = redis.call('HMGET', KEYS[1], 'state', 'updated')
    if h[1] == 'verified' or h[1] == 'published' then return {'there'} end
    if h[1] and tonumber(h[2]) + tonumber(ARGV[2]) > tonumber(ARGV[1]) then return {'there'} end
    local until_ = redis.call('HGET', KEYS[4], 'until')
    if until_ and tonumber(until_) > tonumber(ARGV[1]) then return {'locked'} end
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
    redis.call('HSET', KEYS[4], 'token', 'sweeper', 'until',
      string.format('%.0f', tonumber(ARGV[1]) + tonumber(ARGV[3])))
    redis.call('PEXPIRE', KEYS[4], ARGV[3])
    return {'ok'}
    """
}
