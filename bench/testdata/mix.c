// A mix of what small processors are asked to do, of about equal parts: lists that are searched, turned around and sorted, matrices of
// whole numbers, a state machine that reads numbers, and a CRC over the results. The argument is how often.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint16_t crc16(uint16_t crc, uint32_t value) {
  for (int bit = 0; bit < 32; bit++, value >>= 1) {
    crc = (crc ^ value) & 1 ? crc >> 1 ^ 0xa001 : crc >> 1;
  }
  return crc;
}

struct item { struct item *next; int16_t key, value; };

#define ITEMS 300
static struct item items[ITEMS];

static int by_key(const struct item *a, const struct item *b) { return a->key - b->key; }
static int by_value(const struct item *a, const struct item *b) { return a->value - b->value; }

// sorted merges halves, by calls through a pointer.
static struct item *sorted(struct item *list, int (*compare)(const struct item *, const struct item *)) {
  if (list == NULL || list->next == NULL) return list;
  struct item *slow = list;
  for (struct item *fast = list->next; fast != NULL && fast->next != NULL; fast = fast->next->next) slow = slow->next;
  struct item *second = slow->next;
  slow->next = NULL;
  struct item *a = sorted(list, compare), *b = sorted(second, compare), *head = NULL, **tail = &head;
  while (a != NULL && b != NULL) {
    struct item **least = compare(a, b) <= 0 ? &a : &b;
    *tail = *least, tail = &(*least)->next, *least = (*least)->next;
  }
  *tail = a != NULL ? a : b;
  return head;
}

static uint16_t lists(uint16_t crc, uint32_t seed) {
  for (int i = 0; i < ITEMS; i++) {
    seed = seed * 1664525 + 1013904223;
    items[i] = (struct item){i + 1 < ITEMS ? &items[i + 1] : NULL, (int16_t)(seed >> 16), (int16_t)(seed >> 4)};
  }
  struct item *list = &items[0];
  for (int wanted = 0; wanted < 60; wanted++) {
    const struct item *found = list;
    while (found != NULL && (found->key & 63) != wanted) found = found->next;
    crc = crc16(crc, found == NULL ? 0 : (uint16_t)found->value);
    struct item *turned = NULL;
    while (list != NULL) {
      struct item *next = list->next;
      list->next = turned, turned = list, list = next;
    }
    list = turned;
  }
  list = sorted(sorted(list, by_key), by_value);
  for (const struct item *at = list; at != NULL; at = at->next) crc = crc16(crc, (uint16_t)at->value);
  return crc;
}

#define SIDE 24
static int16_t left[SIDE][SIDE], right[SIDE][SIDE];
static int32_t product[SIDE][SIDE];

static uint16_t matrices(uint16_t crc, uint32_t seed) {
  for (int i = 0; i < SIDE; i++) {
    for (int k = 0; k < SIDE; k++) left[i][k] = (int16_t)(seed + i * k), right[i][k] = (int16_t)(seed - i + k);
  }
  int32_t sum = 0;
  for (int i = 0; i < SIDE; i++) {
    for (int k = 0; k < SIDE; k++) {
      int32_t cell = 0;
      for (int l = 0; l < SIDE; l++) cell += left[i][l] * right[l][k];
      product[i][k] = cell;
      sum += cell > 100 ? (cell >> 3 & 255) : -(cell & 15);
    }
  }
  return crc16(crc16(crc, (uint32_t)sum), (uint32_t)product[SIDE - 1][1]);
}

enum state { START, SIGN, WHOLE, POINT, FRACTION, EXPONENT, POWER, WRONG, STATES };

static enum state after(enum state state, char c) {
  int digit = c >= '0' && c <= '9';
  switch (state) {
  case START: return digit ? WHOLE : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : WRONG;
  case SIGN: return digit ? WHOLE : c == '.' ? POINT : WRONG;
  case WHOLE: return digit ? WHOLE : c == '.' ? FRACTION : c == 'e' ? EXPONENT : WRONG;
  case POINT: return digit ? FRACTION : WRONG;
  case FRACTION: return digit ? FRACTION : c == 'e' ? EXPONENT : WRONG;
  case EXPONENT: return digit || c == '-' ? POWER : WRONG;
  case POWER: return digit ? POWER : WRONG;
  default: return WRONG;
  }
}

static uint16_t states(uint16_t crc, uint32_t seed) {
  static const char *const words[] = {"5012", "-1.25", ".75", "+3e4", "7.5e-3", "T0.3", "-e3", "1..2", "110.700", "-9"};
  uint32_t seen[STATES] = {0};
  for (int n = 0; n < 400; n++) {
    seed = seed * 1664525 + 1013904223;
    enum state state = START;
    for (const char *at = words[(seed >> 16) % 10]; *at != 0; at++) seen[state = after(state, *at)]++;
    seen[state]++;
  }
  for (int i = 0; i < STATES; i++) crc = crc16(crc, seen[i]);
  return crc;
}

int main(int argc, char **argv) {
  uint16_t crc = 0;
  for (int n = argc > 1 ? atoi(argv[1]) : 1; n > 0; n--) {
    crc = lists(crc, (uint32_t)n);
    crc = matrices(crc, (uint32_t)n);
    crc = states(crc, (uint32_t)n);
  }
  printf("%u\n", crc);
  return 0;
}
