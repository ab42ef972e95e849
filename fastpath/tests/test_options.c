/* SPDX-License-Identifier: MIT */
/* The command line: what is accepted, what is refused and with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/link_value.c"
#include "service/options.c"
#include "service/values.c"

static struct tas_config c;
static char out[16384], err[1024];

/* Words up to NULL are the command line. */
static int run(const char *first, ...)
{
	char *argv[16] = { (char *)"tas", (char *)first };
	FILE *o = fmemopen(out, sizeof(out), "w"), *e = fmemopen(err, sizeof(err), "w");
	va_list ap;
	int argc = 2, r;

	va_start(ap, first);
	while ((argv[argc] = va_arg(ap, char *)))
		argc++;
	va_end(ap);
	memset(out, 0, sizeof(out));
	memset(err, 0, sizeof(err));
	r = tas__options(argc, argv, &c, o, e);
	fclose(o);
	fclose(e);
	return r;
}

#define refused(words, ...)                                                    \
	do {                                                                   \
		assert_int_equal(run(__VA_ARGS__, NULL), TAS_OPTIONS_BAD);     \
		if (!strstr(err, words))                                       \
			fail_msg("'%s' does not say '%s'", err, words);        \
	} while (0)
#define ACCEPTED(...) assert_int_equal(run(__VA_ARGS__, NULL), TAS_OPTIONS_RUN)

static void defaults_are_as_documented(void **state)
{
	(void)state;
	ACCEPTED("--ip-addr=10.0.0.1");
	assert_int_equal(c.n_addr, 1);
	assert_int_equal(c.addr[0].bits, 24);
	assert_int_equal(c.link, TAS_LINK_TAP);
	assert_string_equal(c.link_name, "tas0");
	assert_int_equal(c.tcp_rxbuf_len, 1 << 20);
	assert_int_equal(c.tcp_handshake_timeout, 1000000000);
	assert_int_equal(c.tcp_handshake_retries, 6);
	assert_int_equal(c.arp_timeout, 500000);
	assert_true(c.arp_timeout_max == 10000000000ull);
	assert_int_equal(c.socket_mode, 0666);
	assert_int_equal(c.ready_fd, -1);
	assert_int_equal(c.cc, TCP_CC_CUBIC);
}

static void values_reach_the_settings_in_their_unit(void **state)
{
	(void)state;
	ACCEPTED("--ip-addr=10.0.0.1/16", "--ip-addr", "192.168.1.1/30", "--ip-route=0.0.0.0/0,10.0.0.254", "--link=tap:x9",
		 "--tcp-rxbuf-len=300k", "--fp-poll-interval-tas=7", "--socket-mode=600", "--socket=/tmp/s", "--cc=reno",
		 "--app-sockets=77", "--app-chunks=3");
	assert_int_equal(c.n_addr, 2);
	assert_int_equal(c.addr[0].bits, 16);
	assert_int_equal(c.addr[1].bits, 30);
	assert_int_equal(c.n_route, 1);
	assert_int_equal(c.route[0].dst.bits, 0);
	assert_int_equal(c.route[0].nexthop.ip[3], 254);
	assert_string_equal(c.link_name, "x9");
	assert_int_equal(c.tcp_rxbuf_len, 512 * 1024);
	assert_int_equal(c.poll_ns_tas, 7000);
	assert_int_equal(c.socket_mode, 0600);
	assert_string_equal(c.socket_path, "/tmp/s");
	assert_int_equal(c.max_socks_per_set, 77);
	assert_int_equal(c.max_chunks_per_set, 3);
	assert_int_equal(c.cc, TCP_CC_RENO);
}

static void every_kind_of_link_has_its_own_grammar(void **state)
{
	(void)state;
	ACCEPTED("--ip-addr=10.0.0.1", "--link=af_xdp:eth0");
	assert_int_equal(c.link, TAS_LINK_AF_XDP);
	assert_string_equal(c.link_name, "eth0");
	ACCEPTED("--ip-addr=10.0.0.1", "--link=memif:/run/m,server,id=7,mtu=9000");
	assert_int_equal(c.link, TAS_LINK_MEMIF);
	assert_string_equal(c.link_name, "/run/m");
	assert_true(c.memif_server && !c.memif_zero_copy && c.memif_id == 7 && c.link_mtu == 9000);
	ACCEPTED("--ip-addr=10.0.0.1", "--link=memif:m,zero-copy");
	assert_true(!c.memif_server && c.memif_zero_copy && c.memif_id == 0 && c.link_mtu == 0);
	assert_false(c.link_no_checksums);
	ACCEPTED("--ip-addr=10.0.0.1", "--link=memif:m,no-checksums,mtu=9000");
	assert_true(c.link_no_checksums);
	ACCEPTED("--ip-addr=10.0.0.1", "--link=pci:08:00.1");
	assert_string_equal(c.link_name, "0000:08:00.1");
	ACCEPTED("--ip-addr=10.0.0.1", "--link=pci:0001:af:1f.7");
	assert_string_equal(c.link_name, "0001:af:1f.7");
	refused("interface name", "--link=af_xdp:");
	refused("mtu=576 to 9200", "--link=memif:/run/m,mtu=100000");
	refused("mtu=576 to 9200", "--link=memif:/run/m,master");
	refused("PATH without comma", "--link=memif:,server");
	refused("client's end", "--link=memif:/run/m,server,zero-copy");
	refused("as lspci shows it", "--link=pci:eth0");
	refused("as lspci shows it", "--link=pci:0000:00:20.0");
	refused("as lspci shows it", "--link=pci:00:02.0x");
	refused("af_packet:IF, af_xdp:IF", "--link=none:x");
}

static void holding_processors_awake_is_a_choice_of_three(void **state)
{
	(void)state;
	ACCEPTED("--link=none");
	assert_int_equal(c.low_latency, TAS_LATENCY_OFF);
	ACCEPTED("--link=none", "--low-latency=auto");
	assert_int_equal(c.low_latency, TAS_LATENCY_AUTO);
	ACCEPTED("--link=none", "--low-latency=on");
	assert_int_equal(c.low_latency, TAS_LATENCY_ON);
	refused("auto, on or off", "--low-latency=yes");
}

static void flags_are_set(void **state)
{
	(void)state;
	ACCEPTED("--link=none", "--quiet", "--fp-no-ints", "--fp-no-xsumoffload", "--fp-no-autoscale", "--fp-no-hugepages",
		 "--fp-cycles");
	assert_true(c.quiet && c.fp_no_ints && c.fp_no_xsumoffload && c.fp_no_autoscale && c.fp_no_hugepages &&
		    c.fp_cycles);
	assert_int_equal(c.link, TAS_LINK_NONE);
}

static void an_address_is_required_unless_there_is_no_link(void **state)
{
	(void)state;
	refused("--ip-addr", "--quiet");
	ACCEPTED("--link=none");
	refused("--ip-route", "--link=none", "--ip-route=1.0.0.0/8,10.0.0.2");
}

static void wrong_values_name_option_value_and_what_is_accepted(void **state)
{
	(void)state;
	refused("--ip-addr: '1.2.3' is not accepted, but ADDR", "--ip-addr=1.2.3");
	refused("'10.0.0.1/33'", "--ip-addr=10.0.0.1/33");
	refused("IPv4", "--ip-addr=fd00::1/64");
	refused("loopback", "--ip-addr=127.0.0.1/8");
	refused("'-5' is not accepted, but USEC from 1 to", "--arp-timeout=-5");
	refused("'5x'", "--arp-timeout=5x");
	refused("'999' is not accepted, but an octal mode", "--socket-mode=999");
	refused("N from 1 to 8", "--fp-cores-max=9");
	refused("1 to 15 characters", "--link=tap:averyveryverylongname");
	refused("tap[:NAME], af_packet:IF, af_xdp:IF", "--link=wire");
	refused("reno or cubic", "--cc=bbr");
	refused("no dctcp-rate", "--cc=dctcp-rate");
	refused("NEXTHOP", "--ip-route=10.1.0.0/16");
	refused("takes no value", "--quiet=yes");
	refused("needs a value", "--socket");
	refused("'--colour=red' is not an option", "--colour=red");
	refused("'serve' is not an option", "serve");
}

static void options_without_effect_are_refused_by_name_with_the_reason(void **state)
{
	(void)state;
	refused("--app-kin-len is refused: application queues do not exist", "--app-kin-len=1048576");
	refused("--tcp-rtt-init is refused", "--tcp-rtt-init=50");
	refused("--cc-dctcp-mimd is refused", "--cc-dctcp-mimd");
	refused("--kni-name is refused", "--kni-name=x");
}

static void help_names_every_option(void **state)
{
	unsigned i;
	char word[64];

	(void)state;
	assert_int_equal(run("--help", NULL), TAS_OPTIONS_DONE);
	for (i = 0; i < N_OPTIONS; i++) {
		if (!options[i].name)
			continue;
		snprintf(word, sizeof(word), "--%s", options[i].name);
		if (!strstr(out, word))
			fail_msg("help does not name %s", word);
	}
	assert_int_equal(run("--version", NULL), TAS_OPTIONS_DONE);
	assert_non_null(strstr(out, TAS_VERSION));
}

static void the_socket_has_a_default_per_user(void **state)
{
	(void)state;
	setenv("TAS_SOCKET", "/tmp/elsewhere", 1);
	ACCEPTED("--link=none");
	assert_string_equal(c.socket_path, "/tmp/elsewhere");
	unsetenv("TAS_SOCKET");
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	ACCEPTED("--link=none");
	assert_string_equal(c.socket_path, geteuid() ? "/run/user/7/tas/tas.sock" : "/run/tas/tas.sock");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_as_documented),
		cmocka_unit_test(values_reach_the_settings_in_their_unit),
		cmocka_unit_test(every_kind_of_link_has_its_own_grammar),
		cmocka_unit_test(holding_processors_awake_is_a_choice_of_three),
		cmocka_unit_test(flags_are_set),
		cmocka_unit_test(an_address_is_required_unless_there_is_no_link),
		cmocka_unit_test(wrong_values_name_option_value_and_what_is_accepted),
		cmocka_unit_test(options_without_effect_are_refused_by_name_with_the_reason),
		cmocka_unit_test(help_names_every_option),
		cmocka_unit_test(the_socket_has_a_default_per_user),
	};
	unsetenv("TAS_SOCKET");
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
