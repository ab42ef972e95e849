// SPDX-License-Identifier: MIT

// A Go program that links libc (cgo) and makes its system calls itself: an HTTP server and its clients.
package main

// #include <unistd.h>
import "C"

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
)

func main() {
	fmt.Println("libc", C.getppid() > 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, strings.ToUpper(string(body)))
	})
	go http.Serve(l, nil)
	url := "http://" + l.Addr().String()
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for c := 0; c < 20; c++ {
		wg.Add(1)
		go func(c int) {
			defer wg.Done()
			client := http.Client{Transport: &http.Transport{}}
			for i := 0; i < 25; i++ {
				text := fmt.Sprintf("client %d request %d", c, i)
				r, err := client.Post(fmt.Sprintf("%s/%d", url, i), "text/plain", strings.NewReader(text))
				if err != nil {
					fmt.Println(err)
					return
				}
				body, _ := io.ReadAll(r.Body)
				r.Body.Close()
				if string(body) == fmt.Sprintf("POST /%d %s", i, strings.ToUpper(text)) {
					mu.Lock()
					good++
					mu.Unlock()
				}
			}
		}(c)
	}
	wg.Wait()
	out, err := exec.Command("echo", "a child").Output()
	fmt.Println(good, string(out), err)
}
