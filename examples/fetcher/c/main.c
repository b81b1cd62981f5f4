// fetcher asks for URLs, and prints what each answers and how long that is. What its grant does not allow, it is told.
#include <stdio.h>
#include <wasmatrix.h>

int main(int argc, char **argv) {
  static char part[16 << 10];
  for (int i = 1; i < argc; i++) {
    char why[200];
    int32_t status, n;
    int32_t request = wm_http_get("http", argv[i], NULL, &status);
    if (request < 0) {
      printf("%s: %s\n", request == WM_PERMISSION_DENIED ? "denied" : "failed", wm_error(why, sizeof why));
      continue;
    }
    long size = 0;
    while ((n = wm_http_read(request, part, sizeof part)) > 0) size += n;
    if (n < 0) {
      printf("broke off: %s\n", wm_error(why, sizeof why));
    } else {
      printf("%s %d %ld bytes\n", argv[i], status, size);
    }
    wm_http_close(request);
  }
  return 0;
}
