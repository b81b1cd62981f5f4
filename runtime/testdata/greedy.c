// Calls that name as much as the memory has, again and again. The argument says which.
#include <stdint.h>
#include <string.h>

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))
WASI(random_get) int random_get(void *to, uint32_t len);
WASI(fd_write) int wasi_fd_write(int fd, const void *iovs, uint32_t count, uint32_t *written);
WASI(fd_read) int wasi_fd_read(int fd, const void *iovs, uint32_t count, uint32_t *read);
WASI(fd_pwrite) int wasi_fd_pwrite(int fd, const void *iovs, uint32_t count, uint64_t at, uint32_t *written);
WASI(poll_oneoff) int wasi_poll_oneoff(const void *in, void *out, uint32_t count, uint32_t *events);
WASI(path_create_directory) int wasi_path_create_directory(int fd, const void *path, uint32_t len);
WASI(sched_yield) int wasi_sched_yield(void);

#define WASMATRIX(name) __attribute__((import_module("wasmatrix"), import_name(#name)))
WASMATRIX(kv_set) int kv_set(const void *id, uint32_t id_len, const void *bucket, uint32_t bucket_len, const void *key, uint32_t key_len,
                             const void *value, uint32_t value_len, int64_t ttl, int64_t revision);
WASMATRIX(http_open) int http_open(const void *id, uint32_t id_len, const void *method, uint32_t method_len, const void *url, uint32_t url_len,
                                   const void *header, uint32_t header_len, int64_t length, int64_t limit);
WASMATRIX(msg_publish) int msg_publish(const void *id, uint32_t id_len, const void *subject, uint32_t subject_len, const void *data, uint32_t len);
WASMATRIX(result_read) int result_read(void *to, uint32_t from, uint32_t len);

struct iov { uint32_t at, len; };
struct subscription { uint64_t user; uint8_t kind, pad[7]; uint32_t fd; uint8_t rest[28]; };

int main(int argc, char **argv) {
	uint32_t begin = 0, n;
	while (__builtin_wasm_memory_grow(0, 256) != (uint32_t)-1) {} // all that it may have
	uint32_t end = __builtin_wasm_memory_size(0) << 16;
	begin = (uint32_t)__builtin_wasm_memory_size(0) * 1024; // the first 64th is its own
	char *all = (char *)begin;
	uint32_t much = end - begin - 8;
	const char *what = argv[1];
	if (!strcmp(what, "fd_write, many")) {
		struct iov *iovs = (struct iov *)all;
		for (n = 0; n < much / 16; n++) iovs[n] = (struct iov){begin, much / 2};
	}
	if (!strcmp(what, "poll_oneoff")) {
		struct subscription *in = (struct subscription *)all;
		for (n = 0; n < much / 80; n++) in[n].kind = 1;
	}
	if (!strcmp(what, "path_create_directory")) memset(all, 'a', much);
	struct iov one = {begin, much}, said = {(uint32_t)"begins\n", 7};
	wasi_fd_write(2, &said, 1, &n);
	for (;;) {
		if (!strcmp(what, "random_get")) random_get(all, much);
		else if (!strcmp(what, "fd_write, much")) wasi_fd_write(1, &one, 1, &n);
		else if (!strcmp(what, "fd_write, many")) wasi_fd_write(1, all, much / 16, &n);
		else if (!strcmp(what, "fd_write, nothing")) wasi_fd_write(1, all, much / 8, &n);
		else if (!strcmp(what, "fd_read")) wasi_fd_read(0, all, much / 8, &n);
		else if (!strcmp(what, "fd_pwrite")) wasi_fd_pwrite(1, all, much / 8, 0, &n);
		else if (!strcmp(what, "poll_oneoff")) wasi_poll_oneoff(all, all + much / 80 * 48, much / 80, &n);
		else if (!strcmp(what, "path_create_directory")) wasi_path_create_directory(0, all, much);
		else if (!strcmp(what, "sched_yield")) wasi_sched_yield();
		else if (!strcmp(what, "kv_set")) kv_set(all, much, all, much, all, much, all, much, 0, -1), kv_set("kv", 2, all, -1, all, much, all, -1, 0, -1);
		else if (!strcmp(what, "http_open")) http_open("http", 4, all, much, all, much, all, much, -1, 0);
		else if (!strcmp(what, "msg_publish")) msg_publish("messaging", 9, all, much, all, much);
		else if (!strcmp(what, "result_read")) result_read(all, 0, much);
		else return 1;
	}
}
