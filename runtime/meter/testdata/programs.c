// Programs whose speed is measured with and without metering: each is a function that is called with how much to do, and returns a
// checksum. As a command it runs the one that its first argument names, with the second.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name))) uint32_t name(uint32_t n)

static uint8_t memory[1 << 20];

// bytes sums bytes up, one at a time.
EXPORT(bytes) {
  uint32_t sum = 0;
  for (uint32_t round = 0; round < n; round++) {
    for (uint32_t i = 0; i < sizeof memory; i++) {
      sum = sum * 31 + memory[i];
    }
  }
  return sum;
}

static uint32_t fibonacci(uint32_t n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

EXPORT(fib) { return fibonacci(n); }

// mandelbrot counts points of the set.
EXPORT(mandelbrot) {
  uint32_t inside = 0;
  for (uint32_t y = 0; y < n; y++) {
    for (uint32_t x = 0; x < n; x++) {
      double cr = 2.0 * x / n - 1.5, ci = 2.0 * y / n - 1.0, zr = 0, zi = 0;
      int i = 0;
      for (; i < 50 && zr * zr + zi * zi < 4; i++) {
        double next = zr * zr - zi * zi + cr;
        zi = 2 * zr * zi + ci, zr = next;
      }
      inside += i == 50;
    }
  }
  return inside;
}

// sieve counts primes.
EXPORT(sieve) {
  uint32_t count = 0;
  while (n-- > 0) {
    memset(memory, 0, sizeof memory);
    count = 0;
    for (uint32_t i = 2; i < sizeof memory; i++) {
      if (!memory[i]) {
        count++;
        for (uint32_t k = 2 * i; k < sizeof memory; k += i) memory[k] = 1;
      }
    }
  }
  return count;
}

// matrix multiplies matrices of 128 by 128.
static float a[128][128], b[128][128], c[128][128];
EXPORT(matrix) {
  for (int i = 0; i < 128; i++) {
    for (int k = 0; k < 128; k++) a[i][k] = i + k, b[i][k] = i - k;
  }
  while (n-- > 0) {
    for (int i = 0; i < 128; i++) {
      for (int k = 0; k < 128; k++) {
        float sum = 0;
        for (int l = 0; l < 128; l++) sum += a[i][l] * b[l][k];
        c[i][k] = sum;
      }
    }
  }
  return (uint32_t)c[5][7];
}

// sha256 hashes the memory, n times (FIPS 180-4).
static const uint32_t k256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
#define ROTR(x, n) ((x) >> (n) | (x) << (32 - (n)))
EXPORT(sha256) {
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  while (n-- > 0) {
    for (uint8_t *block = memory; block < memory + sizeof memory; block += 64) {
      uint32_t w[64], v[8];
      for (int i = 0; i < 16; i++) w[i] = block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
      for (int i = 16; i < 64; i++) {
        uint32_t s0 = ROTR(w[i - 15], 7) ^ ROTR(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = ROTR(w[i - 2], 17) ^ ROTR(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
      }
      memcpy(v, h, sizeof v);
      for (int i = 0; i < 64; i++) {
        uint32_t t1 = v[7] + (ROTR(v[4], 6) ^ ROTR(v[4], 11) ^ ROTR(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k256[i] + w[i];
        uint32_t t2 = (ROTR(v[0], 2) ^ ROTR(v[0], 13) ^ ROTR(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1, v[0] = t1 + t2;
      }
      for (int i = 0; i < 8; i++) h[i] += v[i];
    }
  }
  return h[0];
}

// collatz follows the sequences of the first n numbers.
EXPORT(collatz) {
  uint32_t longest = 0;
  for (uint64_t start = 1; start <= n; start++) {
    uint32_t steps = 0;
    for (uint64_t x = start; x != 1; steps++) x = x & 1 ? 3 * x + 1 : x / 2;
    if (steps > longest) longest = steps;
  }
  return longest;
}

// sort sorts pseudo-random numbers by calls through a pointer.
static uint32_t numbers[1 << 16];
static int less(uint32_t x, uint32_t y) { return x < y; }
static int (*volatile order)(uint32_t, uint32_t) = less;
static void quick(uint32_t *v, int from, int to, int (*before)(uint32_t, uint32_t)) {
  while (from < to) {
    uint32_t pivot = v[(from + to) / 2];
    int i = from, j = to;
    while (i <= j) {
      while (before(v[i], pivot)) i++;
      while (before(pivot, v[j])) j--;
      if (i <= j) {
        uint32_t t = v[i];
        v[i++] = v[j], v[j--] = t;
      }
    }
    quick(v, from, j, before);
    from = i;
  }
}
EXPORT(sort) {
  while (n-- > 0) {
    uint32_t x = 1;
    for (int i = 0; i < 1 << 16; i++) numbers[i] = x = x * 1664525 + 1013904223;
    quick(numbers, 0, (1 << 16) - 1, order);
  }
  return numbers[1 << 15];
}

// list follows pointers.
static struct node { struct node *next; uint32_t value; } nodes[1 << 14];
EXPORT(list) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < 1 << 14; i++) nodes[i].next = &nodes[(i * 7919 + 1) & ((1 << 14) - 1)], nodes[i].value = i;
  while (n-- > 0) {
    struct node *at = nodes;
    for (int i = 0; i < 1 << 14; i++) sum += at->value, at = at->next;
  }
  return sum;
}

// crc computes a CRC-32 bit by bit.
EXPORT(crc) {
  uint32_t crc = ~0u;
  for (uint32_t i = 0; i < n; i++) {
    crc ^= memory[i & (sizeof memory - 1)];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc;
}

static const struct { const char *name; uint32_t (*run)(uint32_t); } programs[] = {
    {"bytes", bytes}, {"fib", fib}, {"mandelbrot", mandelbrot}, {"sieve", sieve}, {"matrix", matrix},
    {"sha256", sha256}, {"collatz", collatz}, {"sort", sort}, {"list", list}, {"crc", crc},
};

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  for (unsigned i = 0; i < sizeof programs / sizeof *programs; i++) {
    if (strcmp(argv[1], programs[i].name) == 0) {
      printf("%u\n", programs[i].run((uint32_t)atol(argv[2])));
      return 0;
    }
  }
  return 2;
}
