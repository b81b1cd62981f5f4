// workers is a pool: each worker answers some of the jobs, and a producer sends them and prints the answers.
//
//   workers work         reverses the text of jobs
//   workers send TEXT... sends jobs
#include <stdio.h>
#include <string.h>
#include <wasmatrix.h>

static int failed(void) {
  char why[200];
  fprintf(stderr, "%s\n", wm_error(why, sizeof why));
  return 1;
}

// work answers jobs. Instances of one name share them.
static int work(void) {
  static char text[4096];
  uint32_t jobs;
  if (wm_subscribe("messaging", "jobs.reverse", &jobs) < 0) return failed();
  printf("ready\n");
  for (;;) {
    wm_message job = {.data = text, .size = sizeof text};
    int32_t status = wm_receive(jobs, WM_FOREVER, &job);
    if (status == WM_TIMEOUT) continue;
    if (status < 0) return failed();
    size_t len = job.len < job.size ? job.len : job.size;
    printf("job %.*s\n", (int)len, text);
    for (size_t i = 0; i < len / 2; i++) {
      char c = text[i];
      text[i] = text[len - 1 - i];
      text[len - 1 - i] = c;
    }
    if (job.expects_reply && wm_reply(text, len) < 0) return failed();
  }
}

static int send(int n, char **jobs) {
  char answer[4096];
  for (int i = 0; i < n; i++) {
    int32_t len = wm_request("messaging", "jobs.reverse", jobs[i], strlen(jobs[i]), 5000, answer, sizeof answer);
    if (len < 0) return failed();
    if ((size_t)len > sizeof answer) len = sizeof answer;
    printf("%s -> %.*s\n", jobs[i], (int)len, answer);
  }
  return 0;
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0); // so that a line is in the log before what it tells of has an answer
  if (argc == 2 && strcmp(argv[1], "work") == 0) return work();
  if (argc > 2 && strcmp(argv[1], "send") == 0) return send(argc - 2, argv + 2);
  fprintf(stderr, "usage: workers work | workers send TEXT...\n");
  return 1;
}
