-- The tables of the sample shop, the same on every shard: for `pgherd demo`, the tests and docker/compose.yaml.
CREATE TABLE countries (
    code text PRIMARY KEY,
    name text NOT NULL,
    continent text NOT NULL
);
CREATE TABLE customers (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    country text REFERENCES countries,
    credit numeric(12, 2),
    joined timestamptz,
    active boolean,
    token uuid,
    notes jsonb,
    photo bytea
);
CREATE TABLE orders (
    customer_id bigint REFERENCES customers,
    id bigint,
    placed date NOT NULL,
    status text NOT NULL,
    PRIMARY KEY (customer_id, id)
);
CREATE TABLE order_lines (
    customer_id bigint,
    order_id bigint,
    line integer,
    product text NOT NULL,
    quantity integer NOT NULL,
    price numeric(8, 2) NOT NULL,
    PRIMARY KEY (customer_id, order_id, line),
    FOREIGN KEY (customer_id, order_id) REFERENCES orders
);
