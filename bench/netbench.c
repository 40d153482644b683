/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A load generator for ratios: TCP request/response, connect/request/response/close, and one
 * stream.
 *
 *   netbench server ADDRESS PORT            serves all three on one port until killed
 *   netbench rr|crr|stream ADDRESS PORT SECONDS [CONGESTION]
 *
 * A client prints one line: operations (or bytes) per second. The client pins itself to CPU 0 and
 * the server to CPU 1, so that two runs differ by the path between them and not by the scheduler.
 * Congestion control is CUBIC, the kernel's default, unless another is named; never the machine's.
 * The first byte a client sends chooses the service: 'r' echoes, 's' swallows.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STREAM_CHUNK = 128 * 1024 };

static const char *congestion = "cubic";

static void die(const char *what)
{
	fprintf(stderr, "netbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set); /* a single-CPU machine just stays where it is */
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in parse(const char *address, const char *port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons((unsigned short)atoi(port))};

	if (inet_pton(AF_INET, address, &sa.sin_addr) != 1) {
		fprintf(stderr, "netbench: not an IPv4 address: %s\n", address);
		exit(2);
	}
	return sa;
}

static void no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void *serve(void *argument)
{
	static __thread char buffer[STREAM_CHUNK];
	int fd = (int)(long)argument;
	ssize_t n = read(fd, buffer, sizeof(buffer));

	if (n > 0 && buffer[0] == 's') {
		while (read(fd, buffer, sizeof(buffer)) > 0)
			;
	} else {
		while (n > 0) {
			if (write(fd, buffer, (size_t)n) != n)
				break;
			n = read(fd, buffer, sizeof(buffer));
		}
	}
	close(fd);
	return NULL;
}

static _Noreturn void server(struct sockaddr_in sa)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	pthread_attr_t detached;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 1024))
		die("listen");
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	pin(1);
	puts("ready");
	fflush(stdout);
	for (;;) {
		pthread_t thread;
		int client = accept(fd, NULL, NULL);

		if (client < 0)
			continue;
		no_delay(client);
		/* Short connections are served in line: thread creation would dominate them. */
		char kind;
		if (recv(client, &kind, 1, MSG_PEEK) == 1 && kind == 'c') {
			if (read(client, &kind, 1) == 1 && write(client, &kind, 1) == 1) {
				while (read(client, &kind, 1) > 0)
					;
			}
			close(client);
		} else if (pthread_create(&thread, &detached, serve, (void *)(long)client)) {
			close(client);
		}
	}
}

static int dial(const struct sockaddr_in *sa)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, strlen(congestion)))
		die(congestion);
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)))
		die("connect");
	no_delay(fd);
	return fd;
}

static void exchange(int fd, char kind)
{
	if (write(fd, &kind, 1) != 1 || read(fd, &kind, 1) != 1)
		die("exchange");
}

static double request_response(const struct sockaddr_in *sa, double seconds)
{
	int fd = dial(sa);
	double start = now_s(), end = start + seconds, t = start;
	long count = 0;

	while (t < end) {
		for (int i = 0; i < 64; i++)
			exchange(fd, 'r');
		count += 64;
		t = now_s();
	}
	close(fd);
	return (double)count / (t - start);
}

static double connect_request(const struct sockaddr_in *sa, double seconds)
{
	struct linger reset = {.l_onoff = 1, .l_linger = 0}; /* no TIME_WAIT: ports last */
	double start = now_s(), end = start + seconds, t = start;
	long count = 0;

	while (t < end) {
		int fd = dial(sa);

		exchange(fd, 'c');
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
		count++;
		t = now_s();
	}
	return (double)count / (t - start);
}

static double stream(const struct sockaddr_in *sa, double seconds)
{
	static char buffer[STREAM_CHUNK];
	int fd = dial(sa);
	double start = now_s(), end = start + seconds, t = start;
	double total = 0;

	memset(buffer, 's', sizeof(buffer));
	while (t < end) {
		ssize_t n = write(fd, buffer, sizeof(buffer));

		if (n <= 0)
			die("write");
		total += (double)n;
		t = now_s();
	}
	close(fd);
	return total / (t - start);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 4 && !strcmp(argv[1], "server"))
		server(parse(argv[2], argv[3]));
	if (argc == 5 || argc == 6) {
		struct sockaddr_in sa = parse(argv[2], argv[3]);
		double seconds = atof(argv[4]);

		if (argc == 6)
			congestion = argv[5];
		pin(0);
		if (!strcmp(argv[1], "rr"))
			return printf("%.1f\n", request_response(&sa, seconds)) < 0;
		if (!strcmp(argv[1], "crr"))
			return printf("%.1f\n", connect_request(&sa, seconds)) < 0;
		if (!strcmp(argv[1], "stream"))
			return printf("%.1f\n", stream(&sa, seconds)) < 0;
	}
	fprintf(stderr, "usage: netbench server ADDRESS PORT | netbench rr|crr|stream ADDRESS PORT "
			"SECONDS [CONGESTION]\n");
	return 2;
}
