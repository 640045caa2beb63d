/*
 * The 64 steps of MD5 on vectors of LANES inputs; included once for each width, with these set:
 *   LANES     inputs at once, 4 or 8
 *   NAME(x)   the name of this width's `x`
 *   TARGET    attributes of its functions
 */

typedef uint32_t NAME(words) __attribute__((vector_size(LANES * 4)));

/* A row without regard to its alignment. */
typedef struct __attribute__((packed, may_alias)) {
  NAME(words) row;
} NAME(unaligned);

#define F(x, y, z) (z ^ (x & (y ^ z)))
#define G(x, y, z) (y ^ (z & (x ^ y)))
#define H(x, y, z) (x ^ y ^ z)
#define I(x, y, z) (y ^ (x | ~z))
#define STEP(f, a, b, c, d, k, s, t) \
  a += f(b, c, d) + m[k] + (uint32_t)t; \
  a = ((a << s) | (a >> (32 - s))) + b;

/* Words `from` … `from + LANES - 1` of the block of each input: row i of what is read is input i, row k of what is made
   is word k of all. */
TARGET static inline void NAME(transpose)(const uint8_t *const *data, size_t offset, NAME(words) *m) {
  NAME(words) r[LANES], t[LANES];
  for (int i = 0; i < LANES; i++) r[i] = ((const NAME(unaligned) *)(data[i] + offset))->row;
#if LANES == 4
  t[0] = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
  t[1] = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
  t[2] = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  t[3] = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  m[0] = __builtin_shufflevector(t[0], t[1], 0, 1, 4, 5);
  m[1] = __builtin_shufflevector(t[0], t[1], 2, 3, 6, 7);
  m[2] = __builtin_shufflevector(t[2], t[3], 0, 1, 4, 5);
  m[3] = __builtin_shufflevector(t[2], t[3], 2, 3, 6, 7);
#else
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    r[i + 1] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    r[i + 2] = __builtin_shufflevector(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    r[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (int i = 0; i < 4; i++) {
    m[i] = __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    m[i + 4] = __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
#endif
}

TARGET static void NAME(advance)(md5_state *const *states, const uint8_t *const *data, size_t blocks) {
  NAME(words) a, b, c, d;
  for (int i = 0; i < LANES; i++) {
    a[i] = states[i]->word[0];
    b[i] = states[i]->word[1];
    c[i] = states[i]->word[2];
    d[i] = states[i]->word[3];
  }
  for (size_t block = 0; block < blocks; block++) {
    NAME(words) m[16], before[4] = {a, b, c, d};
    for (int part = 0; part < 16; part += LANES) NAME(transpose)(data, block * 64 + (size_t)part * 4, m + part);

    STEP(F, a, b, c, d, 0, 7, 0xd76aa478) STEP(F, d, a, b, c, 1, 12, 0xe8c7b756)
    STEP(F, c, d, a, b, 2, 17, 0x242070db) STEP(F, b, c, d, a, 3, 22, 0xc1bdceee)
    STEP(F, a, b, c, d, 4, 7, 0xf57c0faf) STEP(F, d, a, b, c, 5, 12, 0x4787c62a)
    STEP(F, c, d, a, b, 6, 17, 0xa8304613) STEP(F, b, c, d, a, 7, 22, 0xfd469501)
    STEP(F, a, b, c, d, 8, 7, 0x698098d8) STEP(F, d, a, b, c, 9, 12, 0x8b44f7af)
    STEP(F, c, d, a, b, 10, 17, 0xffff5bb1) STEP(F, b, c, d, a, 11, 22, 0x895cd7be)
    STEP(F, a, b, c, d, 12, 7, 0x6b901122) STEP(F, d, a, b, c, 13, 12, 0xfd987193)
    STEP(F, c, d, a, b, 14, 17, 0xa679438e) STEP(F, b, c, d, a, 15, 22, 0x49b40821)

    STEP(G, a, b, c, d, 1, 5, 0xf61e2562) STEP(G, d, a, b, c, 6, 9, 0xc040b340)
    STEP(G, c, d, a, b, 11, 14, 0x265e5a51) STEP(G, b, c, d, a, 0, 20, 0xe9b6c7aa)
    STEP(G, a, b, c, d, 5, 5, 0xd62f105d) STEP(G, d, a, b, c, 10, 9, 0x02441453)
    STEP(G, c, d, a, b, 15, 14, 0xd8a1e681) STEP(G, b, c, d, a, 4, 20, 0xe7d3fbc8)
    STEP(G, a, b, c, d, 9, 5, 0x21e1cde6) STEP(G, d, a, b, c, 14, 9, 0xc33707d6)
    STEP(G, c, d, a, b, 3, 14, 0xf4d50d87) STEP(G, b, c, d, a, 8, 20, 0x455a14ed)
    STEP(G, a, b, c, d, 13, 5, 0xa9e3e905) STEP(G, d, a, b, c, 2, 9, 0xfcefa3f8)
    STEP(G, c, d, a, b, 7, 14, 0x676f02d9) STEP(G, b, c, d, a, 12, 20, 0x8d2a4c8a)

    STEP(H, a, b, c, d, 5, 4, 0xfffa3942) STEP(H, d, a, b, c, 8, 11, 0x8771f681)
    STEP(H, c, d, a, b, 11, 16, 0x6d9d6122) STEP(H, b, c, d, a, 14, 23, 0xfde5380c)
    STEP(H, a, b, c, d, 1, 4, 0xa4beea44) STEP(H, d, a, b, c, 4, 11, 0x4bdecfa9)
    STEP(H, c, d, a, b, 7, 16, 0xf6bb4b60) STEP(H, b, c, d, a, 10, 23, 0xbebfbc70)
    STEP(H, a, b, c, d, 13, 4, 0x289b7ec6) STEP(H, d, a, b, c, 0, 11, 0xeaa127fa)
    STEP(H, c, d, a, b, 3, 16, 0xd4ef3085) STEP(H, b, c, d, a, 6, 23, 0x04881d05)
    STEP(H, a, b, c, d, 9, 4, 0xd9d4d039) STEP(H, d, a, b, c, 12, 11, 0xe6db99e5)
    STEP(H, c, d, a, b, 15, 16, 0x1fa27cf8) STEP(H, b, c, d, a, 2, 23, 0xc4ac5665)

    STEP(I, a, b, c, d, 0, 6, 0xf4292244) STEP(I, d, a, b, c, 7, 10, 0x432aff97)
    STEP(I, c, d, a, b, 14, 15, 0xab9423a7) STEP(I, b, c, d, a, 5, 21, 0xfc93a039)
    STEP(I, a, b, c, d, 12, 6, 0x655b59c3) STEP(I, d, a, b, c, 3, 10, 0x8f0ccc92)
    STEP(I, c, d, a, b, 10, 15, 0xffeff47d) STEP(I, b, c, d, a, 1, 21, 0x85845dd1)
    STEP(I, a, b, c, d, 8, 6, 0x6fa87e4f) STEP(I, d, a, b, c, 15, 10, 0xfe2ce6e0)
    STEP(I, c, d, a, b, 6, 15, 0xa3014314) STEP(I, b, c, d, a, 13, 21, 0x4e0811a1)
    STEP(I, a, b, c, d, 4, 6, 0xf7537e82) STEP(I, d, a, b, c, 11, 10, 0xbd3af235)
    STEP(I, c, d, a, b, 2, 15, 0x2ad7d2bb) STEP(I, b, c, d, a, 9, 21, 0xeb86d391)

    a += before[0];
    b += before[1];
    c += before[2];
    d += before[3];
  }
  for (int i = 0; i < LANES; i++) {
    states[i]->word[0] = a[i];
    states[i]->word[1] = b[i];
    states[i]->word[2] = c[i];
    states[i]->word[3] = d[i];
  }
}

#undef F
#undef G
#undef H
#undef I
#undef STEP
#undef LANES
#undef NAME
#undef TARGET
