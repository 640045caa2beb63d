internal import Redis

/// The inboxes' Lua. The keys of an inbox share its client's id as their hash tag, with the client's record.
///
/// - `inbox:{ID}` is a hash: id (random, new with each life of the inbox), seq (of the newest message), count and bytes of
///   what is kept, acked (all up to there are done with), written (how far any session has written)
/// - `inbox:{ID}:messages` is a hash: the message by its seq
/// - `inbox:{ID}:ids` is a sorted set: message ids by seq, of what is kept and of the newest that were acknowledged
/// - `inbox:{ID}:expiry` is a sorted set: seqs by the time when they expire
///
/// A seq is microseconds of Redis's clock, pushed up where it hasn't moved on: so no number is given twice, also when
/// Redis lost the newest messages in between. Numbers have gaps; the message before is named with each (`prev`).
enum InboxScripts {
  /// Messages that one call drops at most, so that it holds Redis for a few milliseconds.
  static let batch = 1000
  /// ms by which the keys' lifetime may fall short before an append extends it again.
  static let lifetimeSlack = 60_000
  /// Ids of acknowledged messages that are kept, to know a publisher's retry by.
  static let rememberedIDs = 128

  /// What scripts begin with whose first four keys are of this shape.
  static let preamble = """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local moment = time[1] * 1000000 + time[2]
    local function text(number) return string.format('%.0f', number) end
    local function drop(seqs)
      local dropped, count, bytes = {}, 0, 0
      for i, seq in ipairs(seqs) do
        local size = redis.call('HSTRLEN', KEYS[2], seq)
        dropped[i] = size > 0
        if size > 0 then count, bytes = count + 1, bytes + size end
      end
      if #seqs > 0 then redis.call('ZREM', KEYS[4], unpack(seqs)) end
      if count > 0 then
        redis.call('HDEL', KEYS[2], unpack(seqs))
        redis.call('HINCRBY', KEYS[1], 'count', -count)
        redis.call('HINCRBY', KEYS[1], 'bytes', -bytes)
      end
      return dropped
    end
    local function expire()
      local seqs = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', text(now), 'LIMIT', 0, \(batch))
      if #seqs == 0 then return end
      drop(seqs)
      for _, seq in ipairs(seqs) do redis.call('ZREMRANGEBYSCORE', KEYS[3], seq, seq) end
    end

    """

  /// Appends a message, unless its id is there, and looks up where its client is. An inbox that is missing is made.
  ///
  /// - KEYS: `inbox:{ID}`, `inbox:{ID}:messages`, `inbox:{ID}:ids`, `inbox:{ID}:expiry`, `client:{ID}`
  /// - ARGV: message id, message, when it expires in ms since the epoch or 0, an id for a new inbox, messages and bytes that
  ///   an inbox keeps at most, lifetime of the keys in ms
  /// - Answers: {what, seq, the seq before, inbox id, node or "", node epoch}, where what is 0 appended, 1 it is there
  ///   already; 2 it was there and has been acknowledged; {3} no such client; {4, messages, bytes} the inbox is full;
  ///   {5} it has expired
  static let append = RedisScript(
    preamble + """
      local client = redis.call('HMGET', KEYS[5], 'epoch', 'node', 'node_epoch')
      if not client[1] then return {3} end
      local node, epoch = client[2] or '', tonumber(client[3] or '0')
      local expires = tonumber(ARGV[3])
      if expires > 0 and expires <= now then return {5} end
      expire()
      local box = redis.call('HMGET', KEYS[1], 'id', 'seq', 'count', 'bytes')
      local known = redis.call('ZSCORE', KEYS[3], ARGV[1])
      if box[1] and known then
        local before = redis.call('ZREVRANGEBYSCORE', KEYS[3], '(' .. known, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
        local what = 2
        if redis.call('HEXISTS', KEYS[2], text(tonumber(known))) == 1 then what = 1 end
        return {what, tonumber(known), tonumber(before[2] or '0'), box[1], node, epoch}
      end
      local id = box[1]
      if not id then
        redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
        id = ARGV[4]
        redis.call('HSET', KEYS[1], 'id', id, 'count', '0', 'bytes', '0', 'acked', '0', 'written', '0')
        box = {id, '0', '0', '0'}
      end
      local count, bytes = tonumber(box[3] or '0'), tonumber(box[4] or '0')
      if count + 1 > tonumber(ARGV[5]) or bytes + #ARGV[2] > tonumber(ARGV[6]) then return {4, count, bytes} end
      local before = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
      local seq = math.max(tonumber(box[2] or '0') + 1, moment)
      redis.call('HSET', KEYS[1], 'seq', text(seq), 'count', count + 1, 'bytes', bytes + #ARGV[2])
      redis.call('HSET', KEYS[2], text(seq), ARGV[2])
      redis.call('ZADD', KEYS[3], text(seq), ARGV[1])
      if expires > 0 then redis.call('ZADD', KEYS[4], ARGV[3], text(seq)) end
      local left = redis.call('PTTL', KEYS[1])
      local life = math.max(tonumber(ARGV[7]), expires - now, left)
      if count == 0 or life > left + \(lifetimeSlack) then
        for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], text(life)) end
      elseif expires > 0 and redis.call('ZCARD', KEYS[4]) == 1 then
        redis.call('PEXPIRE', KEYS[4], text(life))
      end
      return {0, seq, tonumber(before[2] or '0'), id, node, epoch}
      """)

  /// Reads messages after a position, in order. A caller that is further in this inbox than the inbox itself shows that
  /// Redis has lost messages: the inbox gets another id, and is read from its beginning.
  ///
  /// - KEYS: `inbox:{ID}`, `inbox:{ID}:messages`, `inbox:{ID}:ids`, `inbox:{ID}:expiry`
  /// - ARGV: messages and bytes of the page at most (one message comes in any case), an id for a new inbox, lifetime of the
  ///   keys in ms, then inbox ids and seqs in turn that the caller has come to
  /// - Answers: {inbox id or "" when there is none, the newest seq, the caller's seq in this inbox or 0, how far sessions
  ///   have written, 1 when nothing follows else 0, the ids of what is kept up to the caller's seq, then seq, message id and
  ///   message in turn}
  static let read = RedisScript(
    preamble + """
      expire()
      local box = redis.call('HMGET', KEYS[1], 'id', 'seq', 'acked', 'written')
      local id = box[1]
      if not id then return {'', 0, 0, 0, 1} end
      local head, acked, written = tonumber(box[2] or '0'), tonumber(box[3] or '0'), tonumber(box[4] or '0')
      local position = 0
      for i = 5, #ARGV, 2 do
        if ARGV[i] == id then position = math.max(position, tonumber(ARGV[i + 1])) end
      end
      if position > head then
        id, position = ARGV[3], 0
        redis.call('HSET', KEYS[1], 'id', id)
      end
      local life = math.max(tonumber(ARGV[4]), redis.call('PTTL', KEYS[1]))
      for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], text(life)) end
      local answer = {id, head, position, written, 1, {}}
      if position > acked then
        local had = redis.call(
          'ZRANGEBYSCORE', KEYS[3], '(' .. text(acked), text(position), 'WITHSCORES', 'LIMIT', 0, \(batch))
        for i = 1, #had, 2 do
          if redis.call('HEXISTS', KEYS[2], text(tonumber(had[i + 1]))) == 1 then table.insert(answer[6], had[i]) end
        end
      end
      local bytes = 0
      local from = '(' .. text(math.max(position, acked))
      while true do
        local slice = redis.call('ZRANGEBYSCORE', KEYS[3], from, '+inf', 'WITHSCORES', 'LIMIT', 0, 100)
        for i = 1, #slice, 2 do
          local seq = tonumber(slice[i + 1])
          local message = redis.call('HGET', KEYS[2], text(seq))
          if message then
            local size = (#answer - 6) / 3
            if size >= tonumber(ARGV[1]) or (size > 0 and bytes + #message > tonumber(ARGV[2])) then
              answer[5] = 0
              return answer
            end
            bytes = bytes + #message
            answer[#answer + 1] = seq
            answer[#answer + 1] = slice[i]
            answer[#answer + 1] = message
          end
          from = '(' .. text(seq)
        end
        if #slice < 200 then return answer end
      end
      """)

  /// Notes what a client has acknowledged, and how far its session has written. An acknowledgement in another inbox
  /// clears nothing.
  ///
  /// - KEYS: `inbox:{ID}`, `inbox:{ID}:messages`, `inbox:{ID}:ids`, `inbox:{ID}:expiry`
  /// - ARGV: inbox id, the seq up to which all is acknowledged or 0, the seq up to which all is written or 0, then ids of
  ///   messages that are acknowledged by themselves, in whichever inbox
  /// - Answers: {1 when there is more to drop up to that seq else 0, then the ids that this seq has dropped}
  static let settle = RedisScript(
    preamble + """
      local function forget(acked)
        local remembered = redis.call('ZCOUNT', KEYS[3], '-inf', text(acked))
        if remembered > \(rememberedIDs) then
          redis.call('ZREMRANGEBYRANK', KEYS[3], 0, remembered - \(rememberedIDs + 1))
        end
      end
      -- Who acknowledges by ids alone names no position: it moves over what is gone, up to the first message that waits.
      local function pass(acked)
        local before = acked
        for round = 1, \(batch / 100) do
          local slice = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. text(acked), '+inf', 'WITHSCORES', 'LIMIT', 0, 100)
          for i = 2, #slice, 2 do
            local seq = tonumber(slice[i])
            if redis.call('HEXISTS', KEYS[2], text(seq)) == 1 then break end
            acked = seq
          end
          if #slice < 200 or acked ~= tonumber(slice[#slice]) then break end
        end
        if acked > before then redis.call('HSET', KEYS[1], 'acked', text(acked)) end
        return acked
      end
      local answer = {0}
      local box = redis.call('HMGET', KEYS[1], 'id', 'acked', 'written', 'seq')
      if not box[1] then return answer end
      for i = 4, #ARGV do
        local seq = redis.call('ZSCORE', KEYS[3], ARGV[i])
        if seq then drop({text(tonumber(seq))}) end
      end
      if #ARGV > 3 then
        local passed = pass(tonumber(box[2] or '0'))
        box[2] = text(passed)
        forget(passed)
      end
      if box[1] ~= ARGV[1] then return answer end
      local head = tonumber(box[4] or '0')
      local written = math.min(tonumber(ARGV[3]), head)
      if written > tonumber(box[3] or '0') then redis.call('HSET', KEYS[1], 'written', text(written)) end
      local before, acked = tonumber(box[2] or '0'), math.min(tonumber(ARGV[2]), head)
      if acked <= before then return answer end
      local done = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. text(before), text(acked), 'WITHSCORES', 'LIMIT', 0, \(batch))
      local seqs = {}
      for i = 2, #done, 2 do seqs[i / 2] = text(tonumber(done[i])) end
      for i, dropped in ipairs(drop(seqs)) do
        if dropped then answer[#answer + 1] = done[2 * i - 1] end
      end
      if #done == \(2 * batch) then
        acked = tonumber(done[#done])
        answer[1] = 1
      end
      redis.call('HSET', KEYS[1], 'acked', text(acked))
      forget(acked)
      return answer
      """)

  /// Takes a message out; its id stays known.
  ///
  /// - KEYS: `inbox:{ID}`, `inbox:{ID}:messages`, `inbox:{ID}:ids`, `inbox:{ID}:expiry`
  /// - ARGV: message id
  /// - Answers: 1 taken out, 0 it is not there
  static let withdraw = RedisScript(
    preamble + """
      local seq = redis.call('ZSCORE', KEYS[3], ARGV[1])
      if not seq or not drop({text(tonumber(seq))})[1] then return 0 end
      return 1
      """)
}
