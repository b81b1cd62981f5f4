// work computes in many ways, prints what comes of it, and ends with what its argument says: "trap" by a trap deep in its calls,
// "exit" with an exit code.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct node {
  struct node *next;
  char name[24];
  double value;
} node;

static int by_name(const void *a, const void *b) { return strcmp((*(node *const *)a)->name, (*(node *const *)b)->name); }
static int by_value(const void *a, const void *b) {
  double x = (*(node *const *)a)->value, y = (*(node *const *)b)->value;
  return (x > y) - (x < y);
}

static int (*const orders[])(const void *, const void *) = {by_name, by_value};

__attribute__((noinline)) static int break_down(int over, const int *by) { return over / *by; }

__attribute__((noinline)) static int descend(int depth, const int *by) {
  if (depth == 0) return break_down(7, by);
  return descend(depth - 1, by) + 1;
}

int main(int argc, char **argv) {
  enum { count = 5000 };
  node *first = NULL, **all = malloc(count * sizeof *all);
  for (uint32_t n = 0; n < count; n++) {
    node *fresh = malloc(sizeof *fresh);
    snprintf(fresh->name, sizeof fresh->name, "node %u", n * 2654435761u);
    fresh->value = sqrt(n * 1.5) * (n % 2 ? 1 : -1);
    fresh->next = first;
    all[n] = first = fresh;
  }
  for (int order = 0; order < 2; order++) {
    qsort(all, count, sizeof *all, orders[order]);
    printf("sorted: %s, %.9f\n", all[0]->name, all[count - 1]->value);
  }
  uint64_t hash = 14695981039346656037u;
  for (node *n = first; n; n = n->next)
    for (const char *c = n->name; *c; c++) hash = (hash ^ (uint8_t)*c) * 1099511628211u;
  printf("hash: %llx\n", (unsigned long long)hash);
  char *text = calloc(1, 200000);
  memset(text, 'x', 150000);
  memmove(text + 1000, text, 180000);
  text = realloc(text, 400000);
  printf("text: %zu, %ld\n", strlen(text), strtol("-12345", NULL, 10));
  int zero = argc > 100;
  if (argc > 1 && strcmp(argv[1], "exit") == 0) return 3;
  if (argc > 1 && strcmp(argv[1], "trap") == 0) printf("%d\n", descend(20, &zero));
  return 0;
}
