// nghttp2, and its one configuration that has to be C: the allocator that lends every session of a loop the same frame buffer.
#pragma once
#include <nghttp2/nghttp2.h>
#include <stdlib.h>

// A session allocates its outgoing frame buffer with exactly this request (NGHTTP2_FRAMEBUF_CHUNKLEN: header block of
// 16,384 bytes, its frame header and one byte of padding length) and keeps it for life. A frame lies in it only between
// two calls on the session when nghttp2_session_mem_send left it half given away, which it never does to us: we copy what
// it returns at once, and the next call finishes the frame. So all sessions of one thread can share one such buffer.
enum { FP_FRAME_BUFFER_BYTES = 16384 + 9 + 1 };

static inline void *fp_malloc(size_t size, void *shared) {
  return size == FP_FRAME_BUFFER_BYTES ? shared : malloc(size);
}
static inline void fp_free(void *memory, void *shared) {
  if (memory != shared) free(memory);
}
static inline void *fp_calloc(size_t count, size_t size, void *shared) {
  (void)shared;
  return calloc(count, size);
}
static inline void *fp_realloc(void *memory, size_t size, void *shared) {
  if (memory == shared && memory) {
    // Leaving the shared buffer: the frame that lies in it moves out.
    void *own = malloc(size);
    if (own) __builtin_memcpy(own, shared, size < FP_FRAME_BUFFER_BYTES ? size : FP_FRAME_BUFFER_BYTES);
    return own;
  }
  return realloc(memory, size);
}
static inline nghttp2_mem fp_shared_frame_buffer(void *shared) {
  nghttp2_mem memory = {shared, fp_malloc, fp_free, fp_calloc, fp_realloc};
  return memory;
}

static inline int32_t fp_frame_stream_id(const nghttp2_frame *frame) { return frame->hd.stream_id; }
static inline uint8_t fp_frame_type(const nghttp2_frame *frame) { return frame->hd.type; }
static inline uint8_t fp_frame_flags(const nghttp2_frame *frame) { return frame->hd.flags; }
static inline nghttp2_headers_category fp_headers_category(const nghttp2_frame *frame) { return frame->headers.cat; }
static inline int32_t fp_goaway_last_stream(const nghttp2_frame *frame) { return frame->goaway.last_stream_id; }
static inline size_t fp_data_padding(const nghttp2_frame *frame) { return frame->data.padlen; }
