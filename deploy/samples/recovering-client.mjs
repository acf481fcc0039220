// A client of message center that misses nothing, for browsers and for Node 22 or later. Take it as a beginning.
//
// The client names the last id that it received when it connects, so the server sends the missed messages. When a server
// leaves, the client opens the next socket before the last one ends. It notices a network that is gone without a word. It
// tells you to load the list from your back end when the server no longer has all missed messages. The rules behind all
// this are in deploy/docs/protocol.md.

const AT_ONCE = new Set([1012, 4408]);
const NEVER = new Set([1002, 1007, 1009, 4400, 4403, 4409, 4410]);
const SLOWEST = 60_000;
// The client gives up after so many refused tokens in a row: the next token would be refused, too.
const REFUSALS = 3;

export class MessageCenter {
  #url;
  #token;
  #channel;
  #on;
  #position;
  #current = null; // socket that delivers
  #next = null; // socket that will take its place
  #seen = new Set(); // ids that the current socket delivered since the next one subscribed
  #alive = new Map(); // per socket: timer until a ping, or until the socket is given up
  #quiet;
  #patience;
  #failures = 0;
  #refusals = 0; // tokens refused in a row
  #stumbles = 0; // failures of your handlers in a row
  #work = Promise.resolve(); // frames are handled one after the other, each after the one before
  #timer = null;
  #stopped = false;

  // token: async () => string. position: the last value given to `onPosition`, "" the first time.
  // onMessage(text or Uint8Array, id), onReload(reason), onPosition(id), onError(error), onEnd(code, reason) are your
  // handlers. The first two may return a promise: until that is fulfilled, nothing else is handled and the position does not
  // move. If one of the two fails, onError is told, and the same message or reload comes again later. After `quiet` ms
  // without a frame the client pings the server. A socket that does not answer or open within `patience` ms is given up.
  constructor({ url, token, channel = "@user", position = "", quiet = 30_000, patience = 20_000, ...on }) {
    this.#url = url;
    this.#quiet = quiet;
    this.#patience = patience;
    this.#token = token;
    this.#channel = channel;
    this.#position = position;
    this.#on = on;
    this.#open();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#current?.close(1000);
    this.#next?.close(1000);
    for (const timer of this.#alive.values()) clearTimeout(timer);
  }

  async #open() {
    if (this.#stopped || this.#next) return;
    const socket = new WebSocket(this.#url);
    this.#next = socket;
    this.#expect(socket);
    socket.onmessage = ({ data }) => {
      this.#expect(socket);
      if (data !== "pong") this.#then(socket, () => this.#receive(socket, JSON.parse(data)));
    };
    socket.onclose = (close) => this.#then(socket, () => this.#closed(socket, close));
    socket.onopen = async () => {
      this.#expect(socket);
      try {
        const token = await this.#token();
        socket.send(JSON.stringify({ op: "auth", i: "auth", token }));
        this.#seen.clear();
        socket.send(JSON.stringify({ op: "subscribe", i: "subscribe", channel: this.#channel, after: this.#position }));
      } catch {
        socket.close();
      }
    };
  }

  // Runs a step after all earlier frames were handled.
  #then(socket, step) {
    this.#work = this.#work.then(step).catch((error) => this.#stumbled(socket, error));
  }

  // A handler of yours failed. The position has not moved, so the same message or reload comes again on another socket.
  #stumbled(socket, error) {
    this.#on.onError?.(error);
    this.#stumbles += 1;
    socket.close(1000);
    this.#closed(socket, { code: 1000, reason: "a handler failed" });
  }

  // Restarts the timer of a socket. A network that is gone closes nothing, and a page does not see the server's own pings.
  #expect(socket) {
    clearTimeout(this.#alive.get(socket));
    if (this.#stopped || (socket !== this.#current && socket !== this.#next)) return;
    const giveUp = () => {
      socket.close(); // may take as long as the network is away, so the socket counts as closed at once
      this.#closed(socket, { code: 1006, reason: "the server does not answer" });
    };
    const ask = () => {
      socket.send("ping");
      this.#alive.set(socket, setTimeout(giveUp, this.#patience));
    };
    const isOpen = socket.readyState === WebSocket.OPEN;
    this.#alive.set(socket, isOpen ? setTimeout(ask, this.#quiet) : setTimeout(giveUp, this.#patience));
  }

  async #receive(socket, frame) {
    if (this.#stopped || (socket !== this.#current && socket !== this.#next)) return; // the socket was replaced
    if (frame.code !== undefined) {
      // Not subscribed: begin again later. After error 9 the server waits for a new token.
      if (frame.code === 9) this.#renew(socket);
      else if (frame.code === 4 && frame.i === "subscribe" && this.#position !== "") {
        await this.#reload("the last id is not one", ""); // the stored id is damaged: begin anew
        socket.close();
      }
      else if (frame.i === "subscribe") socket.close();
    } else if (frame.i === "auth") {
      this.#refusals = 0;
    } else if (frame.i === "subscribe") {
      this.#replace(socket);
      // After a recovery the position moves with the messages that follow, not with this id.
      if (!frame.recovered) await this.#reload("the server no longer has everything since the last id", frame.id);
      else if (this.#position === "") this.#move(frame.id);
    } else if (frame.event === "@reload") {
      await this.#reload(frame.reason, frame.id);
    } else if (frame.event === "@position") {
      this.#move(frame.id);
    } else if (frame.event === "@reconnect") {
      // Spreads the devices over time; the old socket delivers until the new one does.
      this.#timer = setTimeout(() => this.#open(), (Math.random() * frame.within_ms) / 2);
    } else if (frame.id !== undefined) {
      await this.#deliver(socket, frame);
    }
  }

  async #deliver(socket, { id, d, b }) {
    if (this.#seen.delete(id)) return; // the old socket delivered it
    await this.#on.onMessage?.(d ?? Uint8Array.from(atob(b), (byte) => byte.charCodeAt(0)), id);
    if (socket === this.#current && this.#next) this.#seen.add(id);
    this.#stumbles = 0;
    this.#move(id); // only after the message was handled, so a message may come again, but is never lost
  }

  // The next socket delivers from now on.
  #replace(socket) {
    const old = this.#current;
    this.#current = socket;
    if (this.#next === socket) this.#next = null;
    if (old && old !== socket) old.close(1000);
    this.#failures = 0;
  }

  #move(id) {
    this.#position = id;
    this.#on.onPosition?.(id);
  }

  async #reload(reason, id) {
    this.#seen.clear();
    await this.#on.onReload?.(reason);
    this.#stumbles = 0;
    this.#move(id);
  }

  async #renew(socket) {
    try {
      socket.send(JSON.stringify({ op: "auth", i: "auth", token: await this.#token() }));
    } catch {
      socket.close();
    }
  }

  #closed(socket, { code, reason }) {
    clearTimeout(this.#alive.get(socket));
    this.#alive.delete(socket);
    if (socket === this.#next) this.#next = null;
    else if (socket === this.#current) this.#current = null;
    else return;
    if (this.#stopped || this.#current || this.#next) return; // another socket delivers, or will
    if (code === 4401) this.#refusals += 1;
    if (NEVER.has(code) || this.#refusals >= REFUSALS) {
      this.#stopped = true;
      this.#on.onEnd?.(code, reason);
      return;
    }
    const failures = Math.max(this.#failures, this.#stumbles);
    const wait = AT_ONCE.has(code) && failures === 0 ? 0 : Math.min(1_000 * 2 ** failures, SLOWEST);
    this.#failures += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), Math.random() * wait);
  }
}
