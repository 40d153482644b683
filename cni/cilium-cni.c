// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The CNI plugin: hands a call of the container runtime to the agent's socket, and prints what the
 * agent answers. It decides nothing itself but two things: a DEL that meets no agent is queued on
 * disk, and a CHECK or STATUS that meets none says so.
 *
 * Comes in: CNI_* in the environment, the network configuration on stdin. Goes out: a result or an
 * error object on stdout. Static and without libraries, for it runs in whatever the host offers.
 * Specification: CNI 0.3.1 to 1.0.0. The queue: docs/modules/cni.md.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum cni_code {
	CNI_ENVIRONMENT = 4,
	CNI_IO = 5,
	CNI_DECODE = 6,
	CNI_TRY_AGAIN = 11,
	CNI_NOT_AVAILABLE = 50,
	CNI_FAILED = 999,
};

enum limits {
	CONFIG_MAX = 1 << 20, /* a network configuration has some hundred bytes */
	ANSWER_MAX = 1 << 20,
	QUEUE_MAX = 256,	/* files; more mean that nobody ever works them off */
	ANSWER_TIMEOUT_S = 90,	/* the runtime gives up after two minutes */
	CONNECT_TIMEOUT_S = 10, /* how long a DEL waits for an agent that is being replaced */
	POLL_MS = 50,
};

static const char *version = "0.3.1"; /* of the answer, until the configuration says another */

struct buffer {
	char *data;
	size_t size;
	size_t room;
};

static void append(struct buffer *b, const char *data, size_t size)
{
	if (b->size + size + 1 > b->room) {
		b->room = (b->size + size + 1) * 2;
		b->data = realloc(b->data, b->room);
		if (!b->data)
			_exit(CNI_FAILED & 0xff);
	}
	memcpy(b->data + b->size, data, size);
	b->size += size;
	b->data[b->size] = '\0';
}

static void append_text(struct buffer *b, const char *text)
{
	append(b, text, strlen(text));
}

/* A JSON string with its quotes. */
static void append_string(struct buffer *b, const char *text)
{
	char escaped[8];

	append_text(b, "\"");
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\' || *c < 0x20) {
			snprintf(escaped, sizeof(escaped), "\\u%04x", *c);
			append_text(b, escaped);
		} else {
			append(b, (const char *)c, 1);
		}
	}
	append_text(b, "\"");
}

__attribute__((format(printf, 2, 3), noreturn)) static void fail(enum cni_code code,
								 const char *format, ...)
{
	struct buffer out = {0};
	char message[512], number[16];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	snprintf(number, sizeof(number), "%d", code);
	append_text(&out, "{\"cniVersion\":");
	append_string(&out, version);
	append_text(&out, ",\"code\":");
	append_text(&out, number);
	append_text(&out, ",\"msg\":");
	append_string(&out, message);
	append_text(&out, "}\n");
	fwrite(out.data, 1, out.size, stdout);
	fflush(stdout);
	exit(1);
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

static void read_all(int fd, struct buffer *into, size_t limit, const char *what)
{
	char chunk[4096];
	ssize_t count;

	append(into, "", 0);
	while ((count = read(fd, chunk, sizeof(chunk))) != 0) {
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			fail(CNI_IO, "cannot read %s: %s", what, strerror(errno));
		append(into, chunk, (size_t)count);
		if (into->size > limit)
			fail(CNI_DECODE, "%s has more than %zu bytes", what, limit);
	}
}

/* The end of a JSON value that begins at `at`, or NULL where it is none. Depth is bounded by the
 * size of the text. Only as strict as is needed to find a key at the top: the agent decodes it.
 */
static const char *skip_value(const char *at)
{
	int depth = 0;

	do {
		at += strspn(at, " \t\r\n,:");
		if (*at == '"') {
			for (at++; *at && *at != '"'; at++)
				if (*at == '\\' && at[1])
					at++;
			if (!*at)
				return NULL;
			at++;
		} else if (*at == '{' || *at == '[') {
			depth++;
			at++;
		} else if (*at == '}' || *at == ']') {
			if (depth-- == 0)
				return NULL;
			at++;
		} else if (*at) {
			size_t length = strcspn(at, " \t\r\n,:{}[]\"");

			if (!length)
				return NULL;
			at += length;
		} else {
			return NULL;
		}
	} while (depth > 0);
	return at;
}

/* The text of a string at the top of an object, in memory of its own; NULL: there is none. */
static char *top_string(const char *object, const char *key)
{
	const char *at = object + strspn(object, " \t\r\n");
	size_t length = strlen(key);

	if (*at++ != '{')
		return NULL;
	for (;;) {
		at += strspn(at, " \t\r\n,");
		if (*at != '"')
			return NULL;
		const char *name = at + 1;
		const char *end = skip_value(at);

		if (!end)
			return NULL;
		bool found = (size_t)(end - name - 1) == length && !strncmp(name, key, length);

		at = end + strspn(end, " \t\r\n:");
		end = skip_value(at);
		if (!end)
			return NULL;
		if (found && *at == '"' && !memchr(at, '\\', (size_t)(end - at)))
			return strndup(at + 1, (size_t)(end - at - 2));
		if (found)
			return NULL;
		at = end;
	}
}

static int dial(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = ANSWER_TIMEOUT_S};
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		fail(CNI_ENVIRONMENT, "the path of the agent's socket is too long: %s", path);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		fail(CNI_IO, "cannot make a socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	int why = errno;

	close(fd);
	errno = why;
	return -1;
}

/* Sends a request and gives back the HTTP status with the body in `answer`; -1: the agent went
 * away before it had answered.
 */
static int post(int fd, const struct buffer *body, struct buffer *answer)
{
	struct buffer request = {0};
	char chunk[4096], length[64];
	size_t sent = 0;
	int status;

	snprintf(length, sizeof(length), "Content-Length: %zu\r\n\r\n", body->size);
	append_text(&request, "POST /v1/cni HTTP/1.0\r\nHost: localhost\r\n"
			      "Content-Type: application/json\r\n");
	append_text(&request, length);
	append(&request, body->data, body->size);
	while (sent < request.size) {
		ssize_t count = send(fd, request.data + sent, request.size - sent, MSG_NOSIGNAL);

		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return -1;
		sent += (size_t)count;
	}
	append(answer, "", 0);
	for (;;) {
		ssize_t count = read(fd, chunk, sizeof(chunk));

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -1;
		if (count == 0)
			break;
		append(answer, chunk, (size_t)count);
		if (answer->size > ANSWER_MAX)
			return -1;
	}
	char *head_end = strstr(answer->data, "\r\n\r\n");

	if (!head_end || sscanf(answer->data, "HTTP/%*d.%*d %d", &status) != 1)
		return -1;
	size_t head = (size_t)(head_end - answer->data) + 4;

	memmove(answer->data, answer->data + head, answer->size - head + 1);
	answer->size -= head;
	return status;
}

static void sleep_ms(long ms)
{
	struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&time, NULL);
}

static long now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Of the file's name only its uniqueness matters: FNV-1a over container and interface. */
static uint64_t digest(const char *one, const char *two)
{
	uint64_t hash = 0xcbf29ce484222325ULL;

	for (const char *c = one; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 0x100000001b3ULL;
	hash = (hash ^ ':') * 0x100000001b3ULL;
	for (const char *c = two; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 0x100000001b3ULL;
	return hash;
}

static int count_queued(const char *directory)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	int count = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		const char *dot = strrchr(entry->d_name, '.');

		count += dot && !strcmp(dot, ".delete");
	}
	closedir(dir);
	return count;
}

/* Writes the request where a starting agent finds it. The caller holds the lock. */
static void enqueue(const char *directory, const char *container, const char *interface)
{
	struct buffer body = {0};
	char path[4096], aside[4096 + 8];
	int fd;

	if (count_queued(directory) >= QUEUE_MAX)
		fail(CNI_FAILED, "%d deletions wait in %s already: start the agent of this node",
		     QUEUE_MAX, directory);
	append_text(&body, "{\"container-id\":");
	append_string(&body, container);
	append_text(&body, ",\"ifname\":");
	append_string(&body, interface);
	append_text(&body, "}\n");
	snprintf(path, sizeof(path), "%s/%016llx.delete", directory,
		 (unsigned long long)digest(container, interface));
	snprintf(aside, sizeof(aside), "%s.next", path);
	fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, body.data, body.size) != (ssize_t)body.size || fsync(fd) ||
	    close(fd) || rename(aside, path))
		fail(CNI_IO, "cannot queue the deletion in %s: %s", path, strerror(errno));
}

static void make_directory(const char *path)
{
	if (mkdir(path, 0755) && errno != EEXIST)
		fail(CNI_IO, "cannot make directory %s: %s", path, strerror(errno));
}

/* The lock of the queue, shared. The agent holds it alone while it works the queue off; when it
 * lets go, its socket listens.
 */
static int lock_queue(const char *directory)
{
	char path[4096];
	long deadline = now_ms() + CONNECT_TIMEOUT_S * 1000L;
	int fd;

	snprintf(path, sizeof(path), "%s/lockfile", directory);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		fail(CNI_IO, "cannot open %s: %s", path, strerror(errno));
	while (flock(fd, LOCK_SH | LOCK_NB)) {
		if (now_ms() > deadline)
			fail(CNI_TRY_AGAIN, "the agent does not let go of %s: try again", path);
		sleep_ms(POLL_MS);
	}
	return fd;
}

/* An agent's answer is final; so is a queued DEL. */
static int finish(int status, const struct buffer *answer, bool prints)
{
	if (status == 200 && !prints)
		return 0;
	fwrite(answer->data, 1, answer->size, stdout);
	fputc('\n', stdout);
	fflush(stdout);
	return status == 200 ? 0 : 1;
}

static int delete (const char *socket_path, const char *state_dir, const struct buffer *body)
{
	const char *container = environment("CNI_CONTAINERID");
	const char *interface = environment("CNI_IFNAME");
	struct buffer answer = {0};
	char directory[2048];
	int status, fd = dial(socket_path);

	if (fd >= 0) {
		status = post(fd, body, &answer);
		close(fd);
		if (status > 0)
			return finish(status, &answer, false);
		answer.size = 0;
	}
	snprintf(directory, sizeof(directory), "%s/deleteQueue", state_dir);
	make_directory(state_dir);
	make_directory(directory);
	lock_queue(directory);	/* released by our end */
	fd = dial(socket_path); /* an agent may have come up while we waited for the lock */
	if (fd >= 0) {
		status = post(fd, body, &answer);
		close(fd);
		if (status > 0)
			return finish(status, &answer, false);
	}
	enqueue(directory, container, interface);
	return 0;
}

static void compose(struct buffer *body, const char *command, const struct buffer *config)
{
	static const char *const fields[][2] = {
		{"container_id", "CNI_CONTAINERID"},
		{"netns", "CNI_NETNS"},
		{"ifname", "CNI_IFNAME"},
		{"args", "CNI_ARGS"},
		{"path", "CNI_PATH"},
	};

	append_text(body, "{\"command\":");
	append_string(body, command);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		append_text(body, ",");
		append_string(body, fields[i][0]);
		append_text(body, ":");
		append_string(body, environment(fields[i][1]));
	}
	append_text(body, ",\"config\":");
	append(body, config->data, config->size);
	append_text(body, "}");
}

static char *setting(const char *config, const char *key, const char *variable,
		     const char *otherwise)
{
	const char *said = getenv(variable);
	char *found = said && *said ? strdup(said) : top_string(config, key);

	return found ? found : strdup(otherwise);
}

int main(void)
{
	struct buffer config = {0}, body = {0}, answer = {0};
	const char *command = environment("CNI_COMMAND");
	char *said, *socket_path, *state_dir;
	int status, fd;

	if (!*command)
		fail(CNI_ENVIRONMENT, "CNI_COMMAND is not set: this is a CNI plugin, "
				      "container runtimes call it");
	read_all(STDIN_FILENO, &config, CONFIG_MAX, "the network configuration");
	said = config.size ? top_string(config.data, "cniVersion") : NULL;
	if (!strcmp(command, "VERSION")) {
		printf("{\"cniVersion\":\"%s\",\"supportedVersions\":"
		       "[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\"]}\n",
		       said ? said : "1.0.0");
		return 0;
	}
	if (said)
		version = said;
	if (!skip_value(config.data) || config.data[strspn(config.data, " \t\r\n")] != '{')
		fail(CNI_DECODE, "the network configuration on stdin is no JSON object");
	socket_path =
		setting(config.data, "agent-socket", "CILIUM_SOCK", "/var/run/cilium/cilium.sock");
	state_dir = setting(config.data, "state-dir", "CILIUM_STATE_DIR", "/var/run/cilium");
	compose(&body, command, &config);
	if (!strcmp(command, "DEL"))
		return delete (socket_path, state_dir, &body);
	fd = dial(socket_path);
	if (fd < 0) {
		bool probe = !strcmp(command, "STATUS");

		fail(probe ? CNI_NOT_AVAILABLE : CNI_TRY_AGAIN,
		     "the agent does not answer at %s (%s): is its pod running on this node?",
		     socket_path, strerror(errno));
	}
	status = post(fd, &body, &answer);
	if (status < 0)
		fail(CNI_TRY_AGAIN, "the agent ended before it had answered: try again");
	return finish(status, &answer, !strcmp(command, "ADD"));
}
