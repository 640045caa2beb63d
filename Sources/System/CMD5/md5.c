#include "CMD5.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "MD5 reads its words in little-endian order, as this machine doesn't"
#endif

#define LANES 4
#define NAME(x) four_##x
#define TARGET
#include "steps.h"

#if defined(__x86_64__)
#define LANES 8
#define NAME(x) eight_##x
#define TARGET __attribute__((target("avx2")))
#include "steps.h"
#define HAS_EIGHT __builtin_cpu_supports("avx2")
#else
#define HAS_EIGHT 0
#endif

typedef void (*advance_function)(md5_state *const *, const uint8_t *const *, size_t);

/* Groups of `lanes` inputs; lanes that are left over in the last group repeat its first input, for nobody. */
static void advance_groups(
    advance_function advance, size_t lanes, md5_state *states, const uint8_t *const *data, size_t count,
    size_t blocks) {
  for (size_t first = 0; first < count; first += lanes) {
    md5_state unused[8];
    md5_state *lane_states[8];
    const uint8_t *lane_data[8];
    for (size_t i = 0; i < lanes; i++) {
      int is_used = first + i < count;
      unused[i] = states[first];
      lane_states[i] = is_used ? &states[first + i] : &unused[i];
      lane_data[i] = data[is_used ? first + i : first];
    }
    advance(lane_states, lane_data, blocks);
  }
}

size_t md5_lanes(void) { return HAS_EIGHT ? 8 : 4; }

void md5_begin(md5_state *state) {
  static const md5_state start = {{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}};
  *state = start;
}

void md5_advance_portably(md5_state *states, const uint8_t *const *data, size_t count, size_t blocks) {
  advance_groups(four_advance, 4, states, data, count, blocks);
}

void md5_advance(md5_state *states, const uint8_t *const *data, size_t count, size_t blocks) {
#if defined(__x86_64__)
  /* Four inputs and fewer are as fast in four lanes. */
  if (HAS_EIGHT && count > 4) return advance_groups(eight_advance, 8, states, data, count, blocks);
#endif
  md5_advance_portably(states, data, count, blocks);
}

void md5_finish(md5_state *state, const uint8_t *rest, uint64_t length, uint8_t digest[16]) {
  uint8_t tail[128] = {0};
  size_t used = (size_t)(length % 64);
  if (used > 0) memcpy(tail, rest, used);
  tail[used] = 0x80;
  size_t blocks = used < 56 ? 1 : 2;
  uint64_t bits = length * 8;
  memcpy(tail + blocks * 64 - 8, &bits, 8);
  const uint8_t *data[1] = {tail};
  md5_advance_portably(state, data, 1, blocks);
  memcpy(digest, state->word, 16);
}
