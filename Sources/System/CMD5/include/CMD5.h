#ifndef FLEETPUSH_CMD5_H
#define FLEETPUSH_CMD5_H

#include <stddef.h>
#include <stdint.h>

/*
 * MD5 (RFC 1321) of several independent inputs at once: one input is a chain of dependent steps, which leaves most of a
 * core idle; inputs in the lanes of a vector share those steps. For a single input OpenSSL is as fast.
 *
 * No allocation, no state but the caller's; any thread.
 */

/* The chaining value of one input. */
typedef struct {
  uint32_t word[4];
} md5_state;

/* Inputs that are digested at once on this machine: 8 with AVX2, else 4. */
size_t md5_lanes(void);

/* The value before the first byte. */
void md5_begin(md5_state *state);

/*
 * Advances `count` inputs, each by `blocks` blocks of 64 bytes that begin at its own `data[i]`, of any alignment. Two
 * inputs may be the same bytes, never the same state.
 */
void md5_advance(md5_state *states, const uint8_t *const *data, size_t count, size_t blocks);

/*
 * Ends an input with its last bytes, of which there are fewer than 64, and its whole length in bytes; `digest` is the
 * MD5 then, and the state is used up.
 */
void md5_finish(md5_state *state, const uint8_t *rest, uint64_t length, uint8_t digest[16]);

/* As `md5_advance`, by the way that every machine has: for tests. */
void md5_advance_portably(md5_state *states, const uint8_t *const *data, size_t count, size_t blocks);

#endif
