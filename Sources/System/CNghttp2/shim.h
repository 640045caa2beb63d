// nghttp2, and its one configuration that has to be C: the allocator that lends every session of a loop the same frame buffer.
#pragma once
#include <nghttp2/nghttp2.h>
#include <stdlib.h>

// A session reserves its outgoing frame buffer as it is made, by a realloc of nothing to exactly this size
// (NGHTTP2_FRAMEBUF_CHUNKLEN: a header block of 16,384 bytes, a frame header and one byte of padding length), and keeps it
// for life. In a server's session what lies in it between two calls is never read again: we copy what
// nghttp2_session_mem_send returns at once, and the next call finishes the frame. So all server sessions of one thread can
// share one such buffer. A client's session keeps its connection preface in it until the first output: it has its own.
//
// The buffer is lent only while a session is being made: later a peer chooses the sizes that are asked for (the value of a
// header is allocated with its length).
enum { FP_FRAME_BUFFER_BYTES = 16384 + 9 + 1 };

struct fp_frame_buffer {
  int is_lending;
  _Alignas(16) unsigned char bytes[FP_FRAME_BUFFER_BYTES];
};

static inline void fp_lend(void *user, int is_lending) { ((struct fp_frame_buffer *)user)->is_lending = is_lending; }

static inline void *fp_malloc(size_t size, void *user) {
  (void)user;
  return malloc(size);
}
static inline void fp_free(void *memory, void *user) {
  if (memory != ((struct fp_frame_buffer *)user)->bytes) free(memory);
}
static inline void *fp_calloc(size_t count, size_t size, void *user) {
  (void)user;
  return calloc(count, size);
}
static inline void *fp_realloc(void *memory, size_t size, void *user) {
  struct fp_frame_buffer *shared = user;
  if (!memory && shared->is_lending && size == FP_FRAME_BUFFER_BYTES) return shared->bytes;
  if (memory != shared->bytes) return realloc(memory, size);
  // Leaving the shared buffer: the frame that lies in it moves out.
  void *own = malloc(size);
  if (own) __builtin_memcpy(own, shared->bytes, size < FP_FRAME_BUFFER_BYTES ? size : FP_FRAME_BUFFER_BYTES);
  return own;
}
static inline nghttp2_mem fp_shared_frame_buffer(void *user) {
  nghttp2_mem memory = {user, fp_malloc, fp_free, fp_calloc, fp_realloc};
  return memory;
}

static inline int32_t fp_frame_stream_id(const nghttp2_frame *frame) { return frame->hd.stream_id; }
static inline uint8_t fp_frame_type(const nghttp2_frame *frame) { return frame->hd.type; }
static inline uint8_t fp_frame_flags(const nghttp2_frame *frame) { return frame->hd.flags; }
static inline nghttp2_headers_category fp_headers_category(const nghttp2_frame *frame) { return frame->headers.cat; }
