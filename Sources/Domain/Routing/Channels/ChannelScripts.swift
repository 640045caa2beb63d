internal import Redis

/// The channels' Lua. The keys of a channel share its name as their hash tag.
///
/// - `channel:{NAME}` is a sorted set with score 0: frames by their encoded `FrameKey`, which is their order
/// - `channel:{NAME}:log` is a sorted set: the same members by ordinal, the order of arrival
/// - `channel:{NAME}:frames` is a hash: the frame by its ordinal, behind the time of its arrival in ms and the ordinal before
///   it, 8 bytes each
/// - `channel:{NAME}:ids` is a hash: `ordinal:digest` by the id of the frame
/// - `channel:{NAME}:state` is a hash: epoch (random, new with each life of the channel), newest (ordinal), count, bytes,
///   trimmed (the newest ordinal that is gone), floor (the highest key that is gone)
///
/// An ordinal is microseconds of Redis's clock, pushed up where it hasn't moved on, so that no number is given twice, also
/// when Redis comes back without its newest frames; each frame names the one before it (`previous`), so that none can be
/// missed unseen. A caller says which ordinal it has seen: a channel that is behind it has lost frames, and begins a new
/// epoch.
enum ChannelScripts {
  /// Frames that one call takes out at most.
  static let batch = 100

  private static let preamble = """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local moment = time[1] * 1000000 + time[2]
    local function packed(number)
      return struct.pack('>I4I4', math.floor(number / 4294967296), number % 4294967296)
    end
    local function long(bytes, from)
      local high, low = struct.unpack('>I4I4', bytes, from)
      return high * 4294967296 + low
    end
    local function text(number) return string.format('%.0f', number) end
    local function state(seen, fresh)
      local s = redis.call('HMGET', KEYS[5], 'epoch', 'newest', 'count', 'bytes', 'trimmed', 'floor')
      local found = {epoch = s[1], newest = tonumber(s[2] or '0'), count = tonumber(s[3] or '0'),
        bytes = tonumber(s[4] or '0'), trimmed = tonumber(s[5] or '0'), floor = s[6] or ''}
      if not found.epoch then
        found.epoch = fresh
        redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
        redis.call('HSET', KEYS[5], 'epoch', fresh)
      elseif found.newest < seen then
        found.epoch = fresh
        redis.call('HSET', KEYS[5], 'epoch', fresh)
      end
      return found
    end
    -- Lua's own comparison follows the locale.
    local function above(a, b)
      for i = 1, math.min(#a, #b) do
        local x, y = string.byte(a, i), string.byte(b, i)
        if x ~= y then return x > y end
      end
      return #a > #b
    end
    local function trim(s, count, bytes, age)
      for i = 1, \(batch) do
        if s.count == 0 then break end
        local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
        if not oldest[1] then break end
        local ordinal = text(tonumber(oldest[2]))
        local frame = redis.call('HGET', KEYS[3], ordinal) or ''
        local arrived = 0
        if #frame >= 16 then arrived = long(frame, 1) end
        if s.count <= count and s.bytes <= bytes and (age == 0 or arrived >= now - age) then break end
        redis.call('ZREM', KEYS[1], oldest[1])
        redis.call('ZREM', KEYS[2], oldest[1])
        redis.call('HDEL', KEYS[3], ordinal)
        redis.call('HDEL', KEYS[4], string.sub(oldest[1], 17))
        s.count = s.count - 1
        s.bytes = s.bytes - math.max(0, #frame - 16)
        s.trimmed = tonumber(oldest[2])
        if above(oldest[1], s.floor) then s.floor = oldest[1] end
      end
    end
    local function keep(s)
      redis.call('HSET', KEYS[5], 'newest', text(s.newest), 'count', text(s.count), 'bytes', text(s.bytes),
        'trimmed', text(s.trimmed), 'floor', s.floor)
    end

    """

  /// Appends a frame, unless its id is there, and trims the channel.
  ///
  /// - KEYS: `channel:{NAME}`, `:log`, `:frames`, `:ids`, `:state`
  /// - ARGV: the ordinal that the caller has seen, an epoch for a new channel; the key or "" for the next seq_no, the id, the
  ///   timestamp encoded (for a key that is made here), a digest of the content, the frame; frames, bytes and ms of age that
  ///   are kept at most (0 ms: any age); lifetime of the keys in ms
  /// - Answers: {what, epoch, ordinal, the ordinal before, key}, where what is 0 appended, 1 it is there already; {2} the id
  ///   is there with another content; {3} there is no next seq_no that a number of Lua's holds
  static let append = RedisScript(
    preamble + """
      local s = state(tonumber(ARGV[1]), ARGV[2])
      local known = redis.call('HGET', KEYS[4], ARGV[4])
      if known then
        local ordinal, digest = string.match(known, '^(%d+):(.*)$')
        if digest ~= ARGV[6] then return {2} end
        local member = redis.call('ZRANGEBYSCORE', KEYS[2], ordinal, ordinal)[1] or ''
        return {1, s.epoch, tonumber(ordinal), long(redis.call('HGET', KEYS[3], ordinal), 9), member}
      end
      local key = ARGV[3]
      if key == '' then
        local top = redis.call('ZREVRANGE', KEYS[1], 0, 0)[1]
        local high, low = 2147483648, 0
        if top then high, low = struct.unpack('>I4I4', top) end
        low = low + 1
        if low == 4294967296 then high, low = high + 1, 0 end
        if high >= 2147483648 + 2097152 then return {3} end
        key = struct.pack('>I4I4', high, low) .. ARGV[5] .. ARGV[4]
      end
      local before = s.newest
      s.newest = math.max(s.newest + 1, tonumber(ARGV[1]) + 1, moment)
      local ordinal = text(s.newest)
      redis.call('ZADD', KEYS[1], 0, key)
      redis.call('ZADD', KEYS[2], ordinal, key)
      redis.call('HSET', KEYS[3], ordinal, packed(now) .. packed(before) .. ARGV[7])
      redis.call('HSET', KEYS[4], ARGV[4], ordinal .. ':' .. ARGV[6])
      s.count = s.count + 1
      s.bytes = s.bytes + #ARGV[7]
      trim(s, tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]))
      keep(s)
      for i = 1, 5 do redis.call('PEXPIRE', KEYS[i], ARGV[11]) end
      return {0, s.epoch, s.newest, before, key}
      """)

  /// Looks at a channel, and takes out what is too old.
  ///
  /// - KEYS: as `append`
  /// - ARGV: the ordinal that the caller has seen, an epoch for a new channel, ms of age that are kept at most or 0
  /// - Answers: {epoch, newest ordinal, newest ordinal that is gone, highest key that is gone, lowest key, highest key}
  static let look = RedisScript(
    preamble + """
      local s = state(tonumber(ARGV[1]), ARGV[2])
      local age = tonumber(ARGV[3])
      if age > 0 then
        local trimmed = s.trimmed
        trim(s, s.count, s.bytes, age)
        if s.trimmed ~= trimmed then keep(s) end
      end
      local lowest = redis.call('ZRANGE', KEYS[1], 0, 0)[1] or ''
      local highest = redis.call('ZREVRANGE', KEYS[1], 0, 0)[1] or ''
      return {s.epoch, s.newest, s.trimmed, s.floor, lowest, highest}
      """)

  /// Reads frames in the order of the channel.
  ///
  /// - KEYS: as `append`
  /// - ARGV: the ordinal that the caller has seen, an epoch for a new channel, where to begin (as ZRANGEBYLEX takes it),
  ///   frames and bytes of the page at most (one frame comes in any case)
  /// - Answers: {epoch, newest ordinal, newest ordinal that is gone, highest key that is gone, 1 when nothing follows else 0,
  ///   then key, ordinal, the ordinal before, and frame in turn}
  static let readByKey = RedisScript(
    preamble + """
      local s = state(tonumber(ARGV[1]), ARGV[2])
      local limit, bytes = tonumber(ARGV[4]), 0
      local keys = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[3], '+', 'LIMIT', 0, limit + 1)
      local answer = {s.epoch, s.newest, s.trimmed, s.floor, 1}
      for i, key in ipairs(keys) do
        local ordinal = redis.call('ZSCORE', KEYS[2], key)
        local frame = ordinal and redis.call('HGET', KEYS[3], text(tonumber(ordinal)))
        if frame then
          if i > limit or (i > 1 and bytes + #frame > tonumber(ARGV[5])) then
            answer[5] = 0
            return answer
          end
          bytes = bytes + #frame
          answer[#answer + 1] = key
          answer[#answer + 1] = tonumber(ordinal)
          answer[#answer + 1] = long(frame, 9)
          answer[#answer + 1] = string.sub(frame, 17)
        end
      end
      return answer
      """)

  /// Reads frames in the order of their arrival.
  ///
  /// - KEYS: as `append`
  /// - ARGV: as `readByKey`, with the ordinal to go on after in the third place
  /// - Answers: as `readByKey`
  static let readByOrdinal = RedisScript(
    preamble + """
      local s = state(tonumber(ARGV[1]), ARGV[2])
      local limit, bytes = tonumber(ARGV[4]), 0
      local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 1)
      local answer = {s.epoch, s.newest, s.trimmed, s.floor, 1}
      for i = 1, #found, 2 do
        local frame = redis.call('HGET', KEYS[3], text(tonumber(found[i + 1]))) 
        if i > 2 * limit or (i > 1 and bytes + #frame > tonumber(ARGV[5])) then
          answer[5] = 0
          return answer
        end
        bytes = bytes + #frame
        answer[#answer + 1] = found[i]
        answer[#answer + 1] = tonumber(found[i + 1])
        answer[#answer + 1] = long(frame, 9)
        answer[#answer + 1] = string.sub(frame, 17)
      end
      return answer
      """)
}
