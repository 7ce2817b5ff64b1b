export const server = () => () => {};
