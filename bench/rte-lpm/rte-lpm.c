/*
 * Lookups in DPDK's rte_lpm, for `tunpath bench lpm --rte`: the same table and the same addresses as ours.
 *
 *   rte-lpm ROUTES ADDRESSES... -- EAL-ARGUMENTS
 *
 * ROUTES holds three int32 for each route: prefix, length, value. Each ADDRESSES file holds int32 addresses. All in host
 * byte order. Prints `ready PAGES`; then for each line `one N`, `bulk N`, `x4 N` or `chain N` on its input looks up all of
 * the N-th file and prints nanoseconds of CPU time and the sum of the values (0 where there is no route).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lpm.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define BULK 32
#define MOST_FILES 4

struct file {
	uint32_t *words;
	size_t count;
};

static struct file read_file(const char *path)
{
	struct file f = { NULL, 0 };
	FILE *in = fopen(path, "rb");
	if (in == NULL) {
		perror(path);
		exit(1);
	}
	fseek(in, 0, SEEK_END);
	f.count = (size_t)ftell(in) / 4;
	rewind(in);
	f.words = malloc(f.count * 4 + 4);
	if (f.words == NULL || fread(f.words, 4, f.count, in) != f.count) {
		fprintf(stderr, "%s: cannot be read\n", path);
		exit(1);
	}
	fclose(in);
	return f;
}

/*
 * Our table lies in huge pages where the kernel gives them; without hugetlbfs, rte's does not. So lookups go to a copy
 * that does. Says whether it worked.
 */
static int move_to_huge_pages(struct rte_lpm **lpm)
{
	const size_t huge = 2 << 20, bytes = (sizeof **lpm + huge - 1) & ~(huge - 1);
	char *start = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (start == MAP_FAILED)
		return 0;
	start = (char *)(((uintptr_t)start + huge - 1) & ~(huge - 1));
	int given = madvise(start, bytes, MADV_HUGEPAGE) == 0;
	memcpy(start, *lpm, sizeof **lpm);
	given &= madvise(start, bytes, MADV_COLLAPSE) == 0;
	*lpm = (struct rte_lpm *)start;
	return given;
}

/*
 * Enters a route of up to 24 bits; longer ones of the same addresses must come later. rte_lpm_add would do it, too, but
 * searches all routes of the same length one by one: minutes for a million. What is looked up is the same table.
 */
static void set_short(struct rte_lpm *lpm, const uint32_t *route)
{
	struct rte_lpm_tbl_entry entry = { .next_hop = route[2], .valid = 1, .valid_group = 0, .depth = route[1] };
	uint32_t first = route[0] >> 8, n = 1u << (24 - route[1]);
	for (uint32_t i = 0; i < n; i++)
		lpm->tbl24[first + i] = entry;
}

static uint32_t look_up_one(const struct rte_lpm *lpm, const struct file *f)
{
	uint32_t sum = 0, value;
	for (size_t i = 0; i < f->count; i++)
		if (rte_lpm_lookup(lpm, f->words[i], &value) == 0)
			sum += value;
	return sum;
}

static uint32_t look_up_chain(const struct rte_lpm *lpm, const struct file *f)
{
	uint32_t sum = 0, value = 0;
	for (size_t i = 0; i < f->count; i++) {
		/* A value is below 2^24: the next address waits for it and is not changed by it, which the compiler must not know. */
		__asm__ volatile("" : "+r"(value));
		if (rte_lpm_lookup(lpm, f->words[i] ^ (value >> 24), &value) != 0)
			value = 0;
		sum += value;
	}
	return sum;
}

static uint32_t look_up_bulk(const struct rte_lpm *lpm, const struct file *f)
{
	uint32_t sum = 0, next[BULK];
	for (size_t i = 0; i + BULK <= f->count; i += BULK) {
		rte_lpm_lookup_bulk(lpm, f->words + i, next, BULK);
		for (int k = 0; k < BULK; k++)
			if (next[k] & RTE_LPM_LOOKUP_SUCCESS)
				sum += next[k] & 0x00ffffff;
	}
	return sum;
}

static uint32_t look_up_x4(const struct rte_lpm *lpm, const struct file *f)
{
	uint32_t sum = 0, hop[4];
	for (size_t i = 0; i + 4 <= f->count; i += 4) {
		xmm_t ips;
		memcpy(&ips, f->words + i, sizeof ips);
		rte_lpm_lookupx4(lpm, ips, hop, 0);
		sum += hop[0] + hop[1] + hop[2] + hop[3];
	}
	return sum;
}

static uint64_t cpu_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
	struct file files[MOST_FILES];
	char word[16], line[64];
	int dashes = 1, index;

	while (dashes < argc && strcmp(argv[dashes], "--") != 0)
		dashes++;
	if (dashes < 3 || dashes - 2 > MOST_FILES || dashes == argc) {
		fprintf(stderr, "usage: rte-lpm ROUTES ADDRESSES... -- EAL-ARGUMENTS\n");
		return 2;
	}
	struct file routes = read_file(argv[1]);
	for (int i = 2; i < dashes; i++)
		files[i - 2] = read_file(argv[i]);
	if (rte_eal_init(argc - dashes, argv + dashes) < 0) {
		fprintf(stderr, "rte_eal_init: %s\n", rte_strerror(rte_errno));
		return 1;
	}
	size_t count = routes.count / 3, longer = 0;
	for (size_t i = 0; i < count; i++)
		longer += routes.words[3 * i + 1] > 24;
	struct rte_lpm_config config = { .max_rules = count + 256, .number_tbl8s = longer + 256, .flags = 0 };
	struct rte_lpm *lpm = rte_lpm_create("bench", SOCKET_ID_ANY, &config);
	if (lpm == NULL) {
		fprintf(stderr, "rte_lpm_create: %s\n", rte_strerror(rte_errno));
		return 1;
	}
	for (uint8_t length = 0; length <= 24; length++)
		for (size_t i = 0; i < count; i++)
			if (routes.words[3 * i + 1] == length)
				set_short(lpm, routes.words + 3 * i);
	for (size_t i = 0; i < count; i++) {
		const uint32_t *r = routes.words + 3 * i;
		int error = r[1] <= 24 ? 0 : rte_lpm_add(lpm, r[0], (uint8_t)r[1], r[2]);
		if (error != 0) {
			fprintf(stderr, "rte_lpm_add: route %zu: %s\n", i, rte_strerror(-error));
			return 1;
		}
	}
	int huge = move_to_huge_pages(&lpm);
	printf("ready %s\n", huge ? "2 MiB" : "4 KiB");
	fflush(stdout);

	while (fgets(line, sizeof line, stdin) != NULL) {
		if (sscanf(line, "%15s %d", word, &index) != 2 || index < 0 || index >= dashes - 2) {
			fprintf(stderr, "not understood: %s", line);
			return 2;
		}
		uint64_t start = cpu_now();
		uint32_t sum = strcmp(word, "bulk") == 0 ? look_up_bulk(lpm, &files[index])
			: strcmp(word, "x4") == 0 ? look_up_x4(lpm, &files[index])
			: strcmp(word, "chain") == 0 ? look_up_chain(lpm, &files[index])
			: look_up_one(lpm, &files[index]);
		printf("%" PRIu64 " %" PRId32 "\n", cpu_now() - start, (int32_t)sum);
		fflush(stdout);
	}
	return 0;
}
